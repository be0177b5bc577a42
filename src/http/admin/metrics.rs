//! `/metrics`: what rooms count themselves, and the journal, the broker and the routes as they
//! stand at this scrape. The journal's numbers are of one moment, so that they add up.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{Admin, process};
use crate::http::hold::Hold;
use crate::telemetry::exposition::{Label, PREFIX, classic};
use crate::telemetry::status::{
    BrokerState, BrokerStatus, CertificateRole, DiskStatus, RetryingStatus, RouteState, Totals,
};
use crate::webhook::Reason;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AcceptedLabels {
    source: Label,
    status: Label,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabels {
    status: Label,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: Label,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RoleLabels {
    role: Label,
}

/// The whole page.
pub(super) fn page<H: Hold>(admin: &Admin<H>) -> String {
    let mut registry = Registry::with_prefix(PREFIX);
    let totals = admin.journal.totals();
    let (sources, statuses) = (admin.sources.names(), admin.statuses.borrow().clone());
    for source in &sources {
        admin.metrics.source_configured(source);
    }
    register_accepted(&mut registry, &totals, &sources, &statuses);
    register_settled(&mut registry, &totals, &statuses);
    gauge(
        &mut registry,
        "journal_backlog_events",
        "Events that wait for the broker",
        whole(totals.backlog_events),
    );
    gauge(
        &mut registry,
        "journal_backlog_bytes",
        "Bytes they take on the disk",
        whole(totals.backlog_bytes),
    );
    let oldest = Gauge::<f64, AtomicU64>::default();
    oldest.set(admin.journal.oldest_seconds());
    registry.register(
        "journal_oldest_seconds",
        "Age of the oldest event that waits",
        oldest,
    );
    register_disk(&mut registry, &admin.journal.disk());
    gauge(
        &mut registry,
        "ready",
        "Whether webhooks are accepted, as /readyz says",
        admin.obstacles().is_empty().into(),
    );
    register_broker(&mut registry, &admin.broker.borrow());
    let closed = admin
        .routes
        .borrow()
        .iter()
        .filter(|route| route.state == RouteState::Closed)
        .count();
    gauge(
        &mut registry,
        "routes_closed",
        "Routes whose exchange is missing or forbidden",
        whole(closed as u64),
    );
    // The configuration of the start was successful, else there would be no bridge.
    let reload = admin.reload.borrow();
    let is_applied = reload.as_ref().is_none_or(|reload| reload.is_applied);
    gauge(
        &mut registry,
        "config_last_reload_successful",
        "Whether the configuration that was read last is in use",
        is_applied.into(),
    );
    register_retrying(&mut registry, &admin.retrying.borrow());
    classic(&[admin.metrics.registry(), &registry, &process::registry()])
}

/// Series that stand at zero until something happens, then what happened.
fn register_accepted(
    registry: &mut Registry,
    totals: &Totals,
    sources: &[Arc<str>],
    statuses: &[Arc<str>],
) {
    let accepted = Family::<AcceptedLabels, Counter>::default();
    for source in sources {
        for status in statuses
            .iter()
            .cloned()
            .chain(["unknown", "invalid", "malformed"].map(Arc::from))
        {
            let labels = AcceptedLabels {
                source: Label(Arc::clone(source)),
                status: Label(status),
            };
            drop(accepted.get_or_create(&labels));
        }
    }
    for ((source, status), events) in &totals.accepted {
        let labels = AcceptedLabels {
            source: Label(Arc::clone(source)),
            status: Label(Arc::clone(status)),
        };
        accepted.get_or_create(&labels).inc_by(*events);
    }
    registry.register(
        "sessions_accepted",
        "Events held, by source and status",
        accepted,
    );
}

fn register_settled(registry: &mut Registry, totals: &Totals, statuses: &[Arc<str>]) {
    let published = Family::<StatusLabels, Counter>::default();
    for status in statuses.iter().cloned().chain([Arc::from("unknown")]) {
        drop(published.get_or_create(&StatusLabels {
            status: Label(status),
        }));
    }
    for (status, events) in &totals.published {
        published
            .get_or_create(&StatusLabels {
                status: Label(Arc::clone(status)),
            })
            .inc_by(*events);
    }
    registry.register(
        "sessions_published",
        "Events confirmed by the broker, by status",
        published,
    );

    let dead = Family::<ReasonLabels, Counter>::default();
    for reason in Reason::ALL {
        drop(dead.get_or_create(&ReasonLabels {
            reason: Label(reason.as_str().into()),
        }));
    }
    for (reason, events) in &totals.dead_lettered {
        dead.get_or_create(&ReasonLabels {
            reason: Label(Arc::clone(reason)),
        })
        .inc_by(*events);
    }
    registry.register("dead_letters", "Events dead-lettered, by reason", dead);

    let replayed = Counter::<u64>::default();
    replayed.inc_by(totals.replayed);
    registry.register(
        "replayed",
        "Events published again by an operator; in no other count",
        replayed,
    );
}

fn register_disk(registry: &mut Registry, disk: &DiskStatus) {
    for (name, help, bytes) in [
        (
            "journal_disk_free_bytes",
            "Room for events on the journal's disk, free pages of its database included",
            disk.free_bytes,
        ),
        (
            "journal_disk_free_min_bytes",
            "Below this webhooks are refused once nothing settled is left to delete",
            disk.free_min_bytes,
        ),
        (
            "journal_size_bytes",
            "The journal's database with its log",
            disk.journal_bytes,
        ),
        (
            "journal_backlog_limit_bytes",
            "At this backlog webhooks are refused",
            disk.backlog_bytes_max,
        ),
    ] {
        gauge(registry, name, help, whole(bytes));
    }
}

fn register_broker(registry: &mut Registry, broker: &BrokerStatus) {
    let certificates = Family::<RoleLabels, Gauge<f64, AtomicU64>>::default();
    for role in CertificateRole::ALL {
        // Without TLS there is none, but the name has to be there.
        let until = broker.certificates.get(&role);
        let role = Label(role.as_str().into());
        certificates
            .get_or_create(&RoleLabels { role })
            .set(until.map_or(f64::NAN, |until| until.as_duration().as_secs_f64()));
    }
    registry.register(
        "certificate_expiry_seconds",
        "When the certificates of connections to the broker expire, in seconds since 1970",
        certificates,
    );
    let is_connected = matches!(broker.state, BrokerState::Connected | BrokerState::Blocked);
    let is_blocked = broker.state == BrokerState::Blocked;
    gauge(
        registry,
        "broker_connected",
        "Whether there is a connection to the broker",
        is_connected.into(),
    );
    gauge(
        registry,
        "broker_blocked",
        "Whether an alarm of the broker stops publishing",
        is_blocked.into(),
    );
    let reconnects = Counter::<u64>::default();
    reconnects.inc_by(broker.reconnects);
    registry.register("broker_reconnects", "Connections lost", reconnects);
    let restored = Counter::<u64>::default();
    restored.inc_by(broker.restored);
    registry.register(
        "topology_restored",
        "Exchanges and queues that were missing and have been declared again",
        restored,
    );
    for (name, help, messages) in [
        (
            "unrouted_messages",
            "Messages nobody has subscribed to",
            broker.unrouted_messages,
        ),
        (
            "dead_letter_messages",
            "Messages in the dead-letter queue",
            broker.dead_letter_messages,
        ),
    ] {
        match messages {
            Some(messages) => gauge(registry, name, help, whole(messages)),
            None => unknown(registry, name, help),
        }
    }
}

fn register_retrying(registry: &mut Registry, retrying: &[RetryingStatus]) {
    let events = Family::<ReasonLabels, Gauge>::default();
    let of = |reason: &'static str| ReasonLabels {
        reason: Label(reason.into()),
    };
    for reason in [Reason::Nacked, Reason::Unroutable] {
        drop(events.get_or_create(&of(reason.as_str())));
    }
    for one in retrying {
        events
            .get_or_create(&of(one.reason))
            .inc_by(whole(one.events));
    }
    registry.register(
        "retrying_events",
        "Events that the broker refused and that are tried again, by reason",
        events,
    );
}

/// Not known yet is no zero, but the name has to be there.
fn unknown(registry: &mut Registry, name: &str, help: &str) {
    let gauge = Gauge::<f64, AtomicU64>::default();
    gauge.set(f64::NAN);
    registry.register(name, help, gauge);
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: i64) {
    let gauge = Gauge::<i64>::default();
    gauge.set(value);
    registry.register(name, help, gauge);
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
