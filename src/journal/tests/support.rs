//! A store with its directory, and a journal with its thread, each with the verbs of their tests.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tempfile::TempDir;

use crate::config::routing as config;
use crate::journal::directory::Directory;
use crate::journal::reader::{Reader, Request};
use crate::journal::store::{Retention, Store};
use crate::journal::{Ack, Change, Committed, Condemned, Held, Seq, Settlement, damage};
use crate::webhook::routing::Routing;
use crate::webhook::split::split;
use crate::webhook::{Envelope, Reason, Webhook, samples};

pub const WEEK: Duration = Duration::from_hours(7 * 24);

/// Routes by the default configuration, but for the exchange of one status.
pub fn routing(overridden: Option<(&str, &str)>) -> Arc<Routing> {
    let mut routing = config::Routing::default();
    if let Some((status, exchange)) = overridden {
        let status_route = config::Status {
            exchange: Some(exchange.into()),
            routing_key: None,
        };
        routing.statuses.insert(status.into(), status_route);
    }
    Arc::new(Routing::new(&routing, &config::DeadLetter::default()).unwrap())
}

/// A session as it is sent.
pub fn session(id: &str, status: &str) -> String {
    format!(r#"{{"id":"{id}","status":"{status}"}}"#)
}

/// A webhook of the source `acme`.
pub fn webhook<S: AsRef<str>>(elements: &[S]) -> Webhook {
    webhook_of("acme", elements)
}

pub fn webhook_of<S: AsRef<str>>(source: &str, elements: &[S]) -> Webhook {
    let elements: Vec<&str> = elements.iter().map(AsRef::as_ref).collect();
    let body = format!("[{}]", elements.join(","));
    let envelope = Envelope {
        source: source.into(),
        ..samples::envelope()
    };
    split(samples::verified(body), envelope, 10_000).unwrap()
}

pub fn settle(held: &Held, settlement: Settlement) -> Change {
    Change::Settle {
        seq: held.seq,
        label: held.label.clone(),
        settlement,
        attempts: 1,
    }
}

pub fn published(held: &Held) -> Change {
    settle(held, Settlement::Published)
}

pub fn deferred(held: &Held, due_ms: u64) -> Change {
    Change::Defer {
        seq: held.seq,
        due_ms,
        attempts: 3,
        condemned: None,
    }
}

pub fn condemned(held: &Held, reason: Reason) -> Change {
    Change::Defer {
        seq: held.seq,
        due_ms: 0,
        attempts: 12,
        condemned: Some(letter(reason)),
    }
}

pub fn letter(reason: Reason) -> Condemned {
    Condemned {
        reason,
        detail: "no queue takes it".into(),
        at: "2026-11-22T02:00:00.123456Z".parse().unwrap(),
    }
}

pub fn request(route_id: i64) -> Request {
    Request {
        route_id,
        skip: [].into(),
        events_max: 100,
        bytes_max: 1 << 20,
        now_ms: 0,
    }
}

pub fn seqs(events: &[Held]) -> Vec<Seq> {
    events.iter().map(|held| held.seq).collect()
}

/// A store without its thread.
pub struct Bench {
    pub dir: TempDir,
    pub store: Store,
    pub retention: Retention,
    pub now: Timestamp,
}

impl Bench {
    pub fn new() -> Self {
        Self::keeping(WEEK, u64::MAX)
    }

    pub fn keeping(age_max: Duration, bytes_max: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir, &routing(None), age_max);
        Self {
            dir,
            store,
            retention: Retention {
                age_max,
                bytes_max,
                shortage: 0,
            },
            now: samples::envelope().received_at,
        }
    }

    /// As after the end of one process and the start of the next.
    pub fn reopen(self, routing: &Arc<Routing>) -> Self {
        self.store.close().unwrap();
        let store = open(&self.dir, routing, self.retention.age_max);
        Self { store, ..self }
    }

    pub fn database(&self) -> PathBuf {
        self.dir.path().join("journal.db")
    }

    pub fn commit(&mut self, changes: &[Change], webhooks: &[Webhook]) -> Committed {
        self.store
            .commit(changes, webhooks, self.now, &self.retention)
            .unwrap()
    }

    /// Appends one webhook of sessions, each an id and a status.
    pub fn append(&mut self, sessions: &[(&str, &str)]) -> Vec<Held> {
        let elements = sessions.iter().map(|(id, status)| session(id, status));
        let webhook = webhook(&elements.collect::<Vec<_>>());
        self.commit(&[], &[webhook]).fresh
    }

    pub fn change(&mut self, change: Change) -> Ack {
        let acks = self.commit(&[change], &[]).acks;
        <[Ack; 1]>::try_from(acks).unwrap()[0]
    }

    pub fn reader(&self) -> Reader {
        Reader::open(&self.database()).unwrap()
    }

    pub fn number(&self, sql: &str) -> i64 {
        let value: Option<i64> = self
            .store
            .database()
            .query_row(sql, [], |row| row.get(0))
            .unwrap();
        value.unwrap_or_default()
    }

    pub fn column(&self, sql: &str) -> Vec<i64> {
        let mut statement = self.store.database().prepare(sql).unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    }

    pub fn heads(&self) -> Vec<Seq> {
        self.column("SELECT seq FROM pending WHERE head = 1 ORDER BY seq")
    }

    pub fn is_balanced(&self) -> bool {
        let totals = self.store.totals();
        let accepted: u64 = totals.accepted.values().sum();
        let published: u64 = totals.published.values().sum();
        let dead_lettered: u64 = totals.dead_lettered.values().sum();
        accepted == published + dead_lettered + totals.backlog_events
    }
}

fn open(dir: &TempDir, routing: &Arc<Routing>, age_max: Duration) -> Store {
    let directory = Directory::open(dir.path()).unwrap();
    let (store, set_aside) = damage::open(&directory, routing.clone(), !age_max.is_zero()).unwrap();
    assert_eq!(set_aside, None);
    store
}
