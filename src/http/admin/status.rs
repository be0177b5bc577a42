//! `/status`: the state of the bridge, as JSON for people and scripts.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::Admin;
use crate::http::event_store::EventStore;
use crate::telemetry::status::{
    BrokerStatus, DiskStatus, Pause, ReloadStatus, RetryingStatus, RouteStatus, SourceStatus,
    Totals,
};

/// The whole document.
#[derive(Debug, Serialize)]
pub(super) struct StatusDocument {
    version: &'static str,
    uptime_seconds: u64,
    not_ready: Vec<String>,
    broker: BrokerStatus,
    backlog: Backlog,
    counters: Counters,
    routes: Vec<RouteStatus>,
    retrying: Vec<RetryingStatus>,
    paused: Vec<Pause>,
    sources: Vec<SourceStatus>,
    journal: JournalStatus,
    disk: DiskStatus,
    reload: Option<ReloadStatus>,
}

/// The pending events.
#[derive(Debug, Serialize)]
struct Backlog {
    events: u64,
    bytes: u64,
    oldest_seconds: f64,
}

/// Totals of the journal: accepted = published + dead-lettered + backlog.
#[derive(Debug, Serialize)]
struct Counters {
    accepted: u64,
    published: u64,
    dead_lettered: u64,
    replayed: u64,
    accepted_by_source: BTreeMap<Arc<str>, BTreeMap<Arc<str>, u64>>,
    published_by_status: BTreeMap<Arc<str>, u64>,
    dead_lettered_by_reason: BTreeMap<Arc<str>, u64>,
}

#[derive(Debug, Serialize)]
struct JournalStatus {
    refusal: Option<String>,
    /// Which other program's lock blocks it, if there is one.
    #[serde(rename = "others")]
    foreign_locks: Option<String>,
    lost_events: u64,
}

/// The state of the bridge at this moment.
pub(super) fn of<H: EventStore>(admin: &Admin<H>) -> StatusDocument {
    let totals = admin.journal.totals();
    StatusDocument {
        version: env!("CARGO_PKG_VERSION"),
        uptime_seconds: admin.started.elapsed().as_secs(),
        not_ready: admin.unready_reasons(),
        broker: admin.broker.borrow().clone(),
        backlog: Backlog {
            events: totals.backlog_events,
            bytes: totals.backlog_bytes,
            oldest_seconds: admin.journal.oldest_seconds(),
        },
        counters: Counters::of(&totals),
        routes: admin.routes.borrow().clone(),
        retrying: admin.retrying.borrow().clone(),
        paused: admin.pauses.borrow().clone(),
        sources: admin.sources.status(),
        journal: JournalStatus {
            refusal: admin.journal.refusal().map(|error| error.to_string()),
            foreign_locks: admin.journal.foreign_locks(),
            lost_events: totals.lost_events,
        },
        disk: admin.journal.disk(),
        reload: admin.reload.borrow().clone(),
    }
}

impl Counters {
    fn of(totals: &Totals) -> Self {
        let mut accepted_by_source: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for ((source, status), events) in &totals.accepted {
            let by_status = accepted_by_source.entry(Arc::clone(source)).or_default();
            by_status.insert(Arc::clone(status), *events);
        }
        Self {
            accepted: totals.accepted.values().sum(),
            published: totals.published.values().sum(),
            dead_lettered: totals.dead_lettered.values().sum(),
            replayed: totals.replayed,
            accepted_by_source,
            published_by_status: totals.published.clone(),
            dead_lettered_by_reason: totals.dead_lettered.clone(),
        }
    }
}
