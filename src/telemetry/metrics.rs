//! The metrics of the contract that rooms change as they work. Those of the journal, the broker
//! and the routes are read from their status at every scrape and are not here.

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

use super::exposition::{Label, PREFIX};

/// Upper bounds in seconds: from a local confirm to the `confirm_timeout`.
const CONFIRM_BUCKETS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0,
];

/// Upper bounds in seconds: from a broker beside us to one that was away for a day.
const DELIVERY_BUCKETS: [f64; 14] = [
    0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 300.0, 1800.0, 10_800.0, 86_400.0,
];

/// Upper bounds in seconds: from a disk with a cache of its own to one that hangs.
const FSYNC_BUCKETS: [f64; 12] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 10.0,
];

/// Counters, gauges and histograms of this process. Every method is cheap enough for each event.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    webhooks: Family<WebhookLabels, Counter>,
    refused: Family<ReasonLabels, Counter>,
    last_received: Family<SourceLabels, Gauge<f64, AtomicU64>>,
    retries: Family<ReasonLabels, Counter>,
    confirm: Histogram,
    delivery: Histogram,
    fsync: Histogram,
    in_flight: Gauge,
    no_source: Label,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WebhookLabels {
    source: Label,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabels {
    source: Label,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
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
            no_source: Label("-".into()),
        };
        metrics.registered()
    }
}

impl Metrics {
    /// Makes the series of a source visible before its first webhook.
    pub fn source_configured(&self, source: &Arc<str>) {
        let label = Label(Arc::clone(source));
        drop(self.webhooks.get_or_create(&WebhookLabels {
            source: label.clone(),
            code: 202,
        }));
        drop(
            self.last_received
                .get_or_create(&SourceLabels { source: label }),
        );
    }

    /// One request was answered; `source` only if it is a configured one.
    pub fn webhook_answered(&self, source: Option<&Arc<str>>, code: u16) {
        let source = source.map_or_else(|| self.no_source.clone(), |name| Label(Arc::clone(name)));
        self.webhooks
            .get_or_create(&WebhookLabels { source, code })
            .inc();
    }

    /// Makes the series of a reason visible before the first refusal for it.
    pub fn refusal_possible(&self, reason: &'static str) {
        drop(self.refused.get_or_create(&ReasonLabels { reason }));
    }

    /// A request was refused before it reached a source.
    pub fn request_refused(&self, reason: &'static str) {
        self.refused.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// An authentic webhook of this source was complete at that time.
    pub fn webhook_received(&self, source: &Arc<str>, at: Timestamp) {
        let seconds = at.as_duration().as_secs_f64();
        self.last_received
            .get_or_create(&SourceLabels {
                source: Label(Arc::clone(source)),
            })
            .set(seconds);
    }

    /// A message was refused for this reason and will be published again.
    pub fn publish_retried(&self, reason: &'static str) {
        self.retries.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// A message was confirmed that long after it was published.
    pub fn publish_confirmed(&self, elapsed: Duration) {
        self.confirm.observe(elapsed.as_secs_f64());
    }

    /// An event was confirmed that long after its webhook was received.
    pub fn delivered(&self, elapsed: Duration) {
        self.delivery.observe(elapsed.as_secs_f64());
    }

    /// A commit of the journal took that long.
    pub fn journal_synced(&self, elapsed: Duration) {
        self.fsync.observe(elapsed.as_secs_f64());
    }

    /// That many messages are published and not yet confirmed.
    pub fn in_flight(&self, messages: usize) {
        self.in_flight
            .set(i64::try_from(messages).unwrap_or(i64::MAX));
    }

    /// Everything above, for [`classic`](super::exposition::classic).
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    fn registered(mut self) -> Self {
        for reason in ["nacked", "unroutable"] {
            drop(self.retries.get_or_create(&ReasonLabels { reason }));
        }
        let build = Family::<BuildLabels, Gauge>::default();
        build
            .get_or_create(&BuildLabels {
                version: env!("CARGO_PKG_VERSION"),
            })
            .set(1);

        let registry = &mut self.registry;
        registry.register(
            "webhooks",
            "Requests answered, by source and status code; source - is none that is configured",
            self.webhooks.clone(),
        );
        registry.register(
            "http_refused",
            "Requests refused before they reached a source, on either listener, by reason",
            self.refused.clone(),
        );
        registry.register(
            "webhook_last_received_seconds",
            "Time of the last authentic webhook, in seconds since 1970",
            self.last_received.clone(),
        );
        registry.register(
            "publish_retries",
            "Messages the broker refused that are published again, by reason",
            self.retries.clone(),
        );
        registry.register(
            "publish_confirm_seconds",
            "From publishing a message to its confirm",
            self.confirm.clone(),
        );
        registry.register(
            "delivery_seconds",
            "From receiving an event to its confirm",
            self.delivery.clone(),
        );
        registry.register(
            "journal_fsync_seconds",
            "Commits of the journal",
            self.fsync.clone(),
        );
        registry.register(
            "in_flight",
            "Messages published and not yet confirmed",
            self.in_flight.clone(),
        );
        registry.register("build_info", "The version that runs", build);
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
    fn every_name_is_there_before_anything_happened() {
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
    fn what_happens_is_counted_under_its_labels() {
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
