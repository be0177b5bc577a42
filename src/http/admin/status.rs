//! `/status`: how the bridge stands, as JSON for people and scripts.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::Admin;
use crate::http::hold::Hold;
use crate::telemetry::status::{
    BrokerStatus, DiskStatus, ReloadStatus, RetryingStatus, RouteStatus, SourceStatus, Totals,
};

/// The whole page.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    version: &'static str,
    uptime_seconds: u64,
    not_ready: Vec<String>,
    broker: BrokerStatus,
    backlog: Backlog,
    counters: Counters,
    routes: Vec<RouteStatus>,
    retrying: Vec<RetryingStatus>,
    sources: Vec<SourceStatus>,
    journal: JournalStatus,
    disk: DiskStatus,
    reload: Option<ReloadStatus>,
}

/// What waits for the broker.
#[derive(Debug, Serialize)]
struct Backlog {
    events: u64,
    bytes: u64,
    oldest_seconds: f64,
}

/// accepted = published + dead-lettered + backlog.
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
    /// What another program does to it.
    others: Option<String>,
    lost_events: u64,
}

/// How the bridge stands now.
pub(super) fn of<H: Hold>(admin: &Admin<H>) -> Status {
    let totals = admin.journal.totals();
    Status {
        version: env!("CARGO_PKG_VERSION"),
        uptime_seconds: admin.started.elapsed().as_secs(),
        not_ready: admin.obstacles(),
        broker: admin.broker.borrow().clone(),
        backlog: Backlog {
            events: totals.backlog_events,
            bytes: totals.backlog_bytes,
            oldest_seconds: admin.journal.oldest_seconds(),
        },
        counters: Counters::of(&totals),
        routes: admin.routes.borrow().clone(),
        retrying: admin.retrying.borrow().clone(),
        sources: admin.sources.status(),
        journal: JournalStatus {
            refusal: admin.journal.refusal().map(|error| error.to_string()),
            others: admin.journal.others(),
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
