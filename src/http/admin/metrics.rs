//! `/metrics`: what the modules count themselves, and the state of the journal, the broker and the
//! routes at this scrape. The journal's numbers are from one moment, so that they add up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;

use super::{Admin, process};
use crate::http::event_store::EventStore;
use crate::telemetry::exposition::{PREFIX, classic};
use crate::telemetry::status::{
    BrokerState, BrokerStatus, CertificateRole, RetryingStatus, RouteState, Totals,
};
use crate::webhook::DeadLetterReason;

/// Renders the whole page.
pub(super) fn page<H: EventStore>(admin: &Admin<H>) -> String {
    let mut registry = Registry::with_prefix(PREFIX);
    let totals = admin.journal.totals();
    let (sources, statuses) = (admin.sources.names(), admin.statuses.borrow().clone());
    for source in &sources {
        admin.metrics.source_configured(source);
    }
    register_totals(&mut registry, &totals, &sources, &statuses);
    register_state(&mut registry, admin, &totals);
    register_broker(&mut registry, &admin.broker.borrow());
    register_retrying(&mut registry, &admin.retrying.borrow());
    classic(&[admin.metrics.registry(), &registry, &process::registry()])
}

/// Registers the counters of events. Every series exists from the start, at zero.
fn register_totals(
    registry: &mut Registry,
    totals: &Totals,
    sources: &[Arc<str>],
    statuses: &[Arc<str>],
) {
    let routed = || statuses.iter().cloned().chain([Arc::from("unknown")]);
    let rejects = ["invalid", "malformed"].map(Arc::<str>::from);
    let zeros = sources.iter().flat_map(|source| {
        let statuses = routed().chain(rejects.clone());
        statuses.map(move |status| ((Arc::clone(source), status), 0))
    });
    let accepted = zeros.chain(counts(&totals.accepted));
    let accepted = accepted.map(|((source, status), events)| {
        let labels = [("source", source), ("status", status)];
        (labels, events)
    });
    let help = "Events accepted, by source and status";
    counters(registry, "sessions_accepted", help, accepted);

    let published = routed().map(|status| (status, 0));
    let published = published.chain(counts(&totals.published));
    let published = published.map(|(status, events)| ([("status", status)], events));
    let help = "Events confirmed by the broker, by status";
    counters(registry, "sessions_published", help, published);

    let dead = DeadLetterReason::ALL.map(|reason| (Arc::<str>::from(reason.as_str()), 0));
    let dead = dead.into_iter().chain(counts(&totals.dead_lettered));
    let dead = dead.map(|(reason, events)| ([("reason", reason)], events));
    counters(
        registry,
        "dead_letters",
        "Events dead-lettered, by reason",
        dead,
    );

    let help = "Events published again by an operator; part of no other counter";
    registry.register("replayed", help, ConstCounter::new(totals.replayed));
}

fn counts<K: Clone>(totals: &BTreeMap<K, u64>) -> impl Iterator<Item = (K, u64)> {
    totals.iter().map(|(key, events)| (key.clone(), *events))
}

/// Registers a counter for each set of labels. Values of the same labels are added.
fn counters<const LABELS: usize>(
    registry: &mut Registry,
    name: &str,
    help: &str,
    series: impl Iterator<Item = ([(&'static str, Arc<str>); LABELS], u64)>,
) {
    let family = Family::<_, Counter>::default();
    for (labels, value) in series {
        family.get_or_create(&labels).inc_by(value);
    }
    registry.register(name, help, family);
}

fn register_state<H: EventStore>(registry: &mut Registry, admin: &Admin<H>, totals: &Totals) {
    let help = "Age of the oldest pending event in seconds";
    let oldest = ConstGauge::new(admin.journal.oldest_seconds());
    registry.register("journal_oldest_seconds", help, oldest);

    let mut gauge =
        |name, help, value| registry.register(name, help, ConstGauge::<u64>::new(value));
    let help = "Pending events: neither published nor dead-lettered yet";
    gauge("journal_backlog_events", help, totals.backlog_events);
    let help = "Bytes that the pending events take on the disk";
    gauge("journal_backlog_bytes", help, totals.backlog_bytes);
    let disk = admin.journal.disk();
    let help = "Free space for events on the journal's disk, including free pages of its database";
    gauge("journal_disk_free_bytes", help, disk.free_bytes);
    let help = "Free space below which webhooks are answered 503 once no completed event is left to delete";
    gauge("journal_disk_free_min_bytes", help, disk.free_min_bytes);
    let help = "Size of the journal's database with its WAL";
    gauge("journal_size_bytes", help, disk.journal_bytes);
    let help = "Backlog at which webhooks are answered 503";
    gauge("journal_backlog_limit_bytes", help, disk.backlog_bytes_max);
    let help = "Whether webhooks are accepted, as /readyz reports";
    gauge("ready", help, admin.unready_reasons().is_empty().into());
    let routes = admin.routes.borrow();
    let closed = routes
        .iter()
        .filter(|route| route.state == RouteState::Unavailable);
    let help =
        "Routes that are unavailable (closed in /status): their exchange is missing or forbidden";
    gauge("routes_closed", help, closed.count() as u64);
    let help = "Pauses of publishing, set by operators";
    gauge("paused", help, admin.pauses.borrow().len() as u64);
    // Without a reload, the configuration of the start is in use.
    let reload = admin.reload.borrow();
    let is_applied = reload.as_ref().is_none_or(|reload| reload.is_applied);
    let help = "Whether the last reload of the configuration succeeded";
    gauge("config_last_reload_successful", help, is_applied.into());
}

fn register_broker(registry: &mut Registry, broker: &BrokerStatus) {
    // What is not known is NaN: zero would be wrong, and the series must exist.
    let certificates = Family::<_, Gauge<f64, AtomicU64>>::default();
    for role in CertificateRole::ALL {
        let until = broker.certificates.get(&role);
        let seconds = until.map_or(f64::NAN, |until| until.as_duration().as_secs_f64());
        certificates
            .get_or_create(&[("role", role.as_str())])
            .set(seconds);
    }
    let help = "When the certificates of connections to the broker expire, in seconds since 1970";
    registry.register("certificate_expiry_seconds", help, certificates);

    let is_blocked = broker.state == BrokerState::Blocked;
    let is_connected = is_blocked || broker.state == BrokerState::Connected;
    let mut gauge = |name, help, value: Option<u64>| match value {
        Some(value) => registry.register(name, help, ConstGauge::new(value)),
        None => registry.register(name, help, ConstGauge::new(f64::NAN)),
    };
    let help = "Whether there is a connection to the broker";
    gauge("broker_connected", help, Some(is_connected.into()));
    let help = "Whether an alarm of the broker stops publishing";
    gauge("broker_blocked", help, Some(is_blocked.into()));
    let help = "Messages in the queue for events that no consumer has subscribed to";
    gauge("unrouted_messages", help, broker.unrouted_messages);
    let help = "Messages in the dead-letter queue";
    gauge("dead_letter_messages", help, broker.dead_letter_messages);

    let mut counter = |name, help, value: u64| {
        registry.register(name, help, ConstCounter::new(value));
    };
    let help = "Connections to the broker that were lost";
    counter("broker_reconnects", help, broker.reconnects);
    let help = "Exchanges and queues that were missing and have been declared again";
    counter("topology_restored", help, broker.restored);
}

fn register_retrying(registry: &mut Registry, retrying: &[RetryingStatus]) {
    let zeros =
        [DeadLetterReason::Nacked, DeadLetterReason::Unroutable].map(|reason| (reason.as_str(), 0));
    let retrying = retrying.iter().map(|one| (one.reason, one.events));
    let events = Family::<_, Gauge<u64, AtomicU64>>::default();
    for (reason, count) in zeros.into_iter().chain(retrying) {
        events.get_or_create(&[("reason", reason)]).inc_by(count);
    }
    let help = "Events that the broker rejected and that are retried, by reason";
    registry.register("retrying_events", help, events);
}
