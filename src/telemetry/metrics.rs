//! The metrics that modules update at run time. Those of the journal, the broker and the routes are
//! computed from their status at every scrape and are not defined here.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::exposition::PREFIX;

/// Upper bounds in seconds: from a confirm of a local broker to the `confirm_timeout`.
const CONFIRM_BUCKETS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0,
];

/// Upper bounds in seconds: from a local broker to one that was away for a day.
const DELIVERY_BUCKETS: [f64; 14] = [
    0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 300.0, 1800.0, 10_800.0, 86_400.0,
];

/// Upper bounds in seconds: from a disk with a write cache to one that hangs.
const FSYNC_BUCKETS: [f64; 12] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 10.0,
];

/// Counters, gauges and histograms of this process. Every method is cheap enough to be called for
/// each event.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    webhooks: Family<WebhookLabels, Counter>,
    refused: Family<Labels<&'static str>, Counter>,
    last_received: Family<Labels<Arc<str>>, Gauge<f64, AtomicU64>>,
    retries: Family<Labels<&'static str>, Counter>,
    confirm: Histogram,
    delivery: Histogram,
    fsync: Histogram,
    in_flight: Gauge,
    no_source: Arc<str>,
}

/// A set of one label: its name and its value.
type Labels<V> = [(&'static str, V); 1];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WebhookLabels {
    source: Arc<str>,
    code: u16,
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            registry: Registry::with_prefix(PREFIX),
            webhooks: Family::default(),
            refused: Family::default(),
            last_received: Family::default(),
            retries: Family::default(),
            confirm: Histogram::new(CONFIRM_BUCKETS),
            delivery: Histogram::new(DELIVERY_BUCKETS),
            fsync: Histogram::new(FSYNC_BUCKETS),
            in_flight: Gauge::default(),
            no_source: "-".into(),
        };
        metrics.registered()
    }
}

impl Metrics {
    /// Creates the series of a source, so that they are exported before its first webhook.
    pub fn source_configured(&self, source: &Arc<str>) {
        let (source, code) = (Arc::clone(source), 202);
        drop(
            self.last_received
                .get_or_create(&[("source", Arc::clone(&source))]),
        );
        drop(self.webhooks.get_or_create(&WebhookLabels { source, code }));
    }

    /// Counts an answered request. `source` is `None` if the request names no configured source.
    pub fn webhook_answered(&self, source: Option<&Arc<str>>, code: u16) {
        let source = Arc::clone(source.unwrap_or(&self.no_source));
        self.webhooks
            .get_or_create(&WebhookLabels { source, code })
            .inc();
    }

    /// Creates the series of a reason, so that it is exported before the first refusal.
    pub fn refusal_possible(&self, reason: &'static str) {
        drop(self.refused.get_or_create(&[("reason", reason)]));
    }

    /// Counts a request that was refused before it reached a source.
    pub fn request_refused(&self, reason: &'static str) {
        self.refused.get_or_create(&[("reason", reason)]).inc();
    }

    /// Records when an authentic webhook of this source had been received completely.
    pub fn webhook_received(&self, source: &Arc<str>, at: Timestamp) {
        let seconds = at.as_duration().as_secs_f64();
        let labels = [("source", Arc::clone(source))];
        self.last_received.get_or_create(&labels).set(seconds);
    }

    /// Counts a message that was not delivered, for this reason.
    pub fn publish_retried(&self, reason: &'static str) {
        self.retries.get_or_create(&[("reason", reason)]).inc();
    }

    /// Records the time from sending the publish window of a message to the last confirm of that
    /// window.
    pub fn publish_confirmed(&self, elapsed: Duration) {
        self.confirm.observe(elapsed.as_secs_f64());
    }

    /// Records the time from receiving a webhook to the confirm of one of its events.
    pub fn delivered(&self, elapsed: Duration) {
        self.delivery.observe(elapsed.as_secs_f64());
    }

    /// Records the duration of a commit of the journal.
    pub fn journal_synced(&self, elapsed: Duration) {
        self.fsync.observe(elapsed.as_secs_f64());
    }

    /// Sets the number of messages that are published and not yet confirmed.
    pub fn in_flight(&self, messages: usize) {
        self.in_flight
            .set(i64::try_from(messages).unwrap_or(i64::MAX));
    }

    /// The registry of all these metrics, for [`classic`](super::exposition::classic).
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    fn registered(mut self) -> Self {
        for reason in ["nacked", "unroutable"] {
            drop(self.retries.get_or_create(&[("reason", reason)]));
        }
        let registry = &mut self.registry;
        let help =
            "Webhooks answered, by source and status code; source is - if it is not configured";
        registry.register("webhooks", help, self.webhooks.clone());
        let help =
            "HTTP requests refused before they reached a source, on either listener, by reason";
        registry.register("http_refused", help, self.refused.clone());
        let help = "Time of the last authentic webhook, in seconds since 1970";
        let last_received = self.last_received.clone();
        registry.register("webhook_last_received_seconds", help, last_received);
        let help = "Messages published again, by reason: nacked and unroutable (rejected), channel-closed, unknown (no confirm)";
        registry.register("publish_retries", help, self.retries.clone());
        let help =
            "Seconds from sending a message's publish window to the last confirm of that window";
        registry.register("publish_confirm_seconds", help, self.confirm.clone());
        let help = "Seconds from receiving an event to its confirm";
        registry.register("delivery_seconds", help, self.delivery.clone());
        let help = "Seconds that commits of the journal take, fsync included";
        registry.register("journal_fsync_seconds", help, self.fsync.clone());
        let help = "Messages published and not yet confirmed";
        registry.register("in_flight", help, self.in_flight.clone());

        let build = Family::<Labels<_>, Gauge>::default();
        let version = env!("CARGO_PKG_VERSION");
        build.get_or_create(&[("version", version)]).set(1);
        registry.register("build_info", "The running version", build);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::exposition::classic;

    fn scrape(metrics: &Metrics) -> String {
        classic(&[metrics.registry()])
    }

    #[test]
    fn every_metric_exists_from_the_start() {
        let metrics = Metrics::default();
        metrics.source_configured(&"acme".into());
        let page = scrape(&metrics);
        for series in [
            "deskbridge_webhooks_total{source=\"acme\",code=\"202\"} 0",
            "deskbridge_webhook_last_received_seconds{source=\"acme\"} 0",
            "deskbridge_publish_retries_total{reason=\"nacked\"} 0",
            "deskbridge_publish_retries_total{reason=\"unroutable\"} 0",
            "deskbridge_publish_confirm_seconds_count 0",
            "deskbridge_delivery_seconds_count 0",
            "deskbridge_journal_fsync_seconds_count 0",
            "deskbridge_in_flight 0",
            concat!(
                "deskbridge_build_info{version=\"",
                env!("CARGO_PKG_VERSION"),
                "\"} 1"
            ),
        ] {
            assert!(
                page.lines().any(|line| line.starts_with(series)),
                "no `{series}` in\n{page}"
            );
        }
    }

    #[test]
    fn events_are_counted_under_their_labels() {
        let metrics = Metrics::default();
        let acme: Arc<str> = "acme".into();
        metrics.webhook_answered(Some(&acme), 202);
        metrics.webhook_answered(Some(&acme), 202);
        metrics.webhook_answered(None, 404);
        metrics.webhook_received(&acme, "2026-02-03T04:05:06.5Z".parse().unwrap());
        metrics.publish_retried("nacked");
        metrics.delivered(Duration::from_millis(40));
        metrics.in_flight(7);
        let page = scrape(&metrics);
        for series in [
            "deskbridge_webhooks_total{source=\"acme\",code=\"202\"} 2",
            "deskbridge_webhooks_total{source=\"-\",code=\"404\"} 1",
            "deskbridge_webhook_last_received_seconds{source=\"acme\"} 1770091506.5",
            "deskbridge_publish_retries_total{reason=\"nacked\"} 1",
            "deskbridge_delivery_seconds_bucket{le=\"0.05\"} 1",
            "deskbridge_delivery_seconds_bucket{le=\"0.025\"} 0",
            "deskbridge_in_flight 7",
        ] {
            assert!(
                page.lines().any(|line| line == series),
                "no `{series}` in\n{page}"
            );
        }
    }
}
