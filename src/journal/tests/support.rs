//! A store with its directory, and a journal with its thread, with helpers for the tests.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tempfile::TempDir;

use crate::config::Config;
use crate::config::routing::StatusRouting;
use crate::journal::directory::Directory;
use crate::journal::reader::{FetchRequest, Reader};
use crate::journal::store::{Retention, Store};
use crate::journal::{
    Committed, DeadLetterCause, FinalState, QueuedEvent, Seq, Transition, TransitionApplied, damage,
};
use crate::settings;
use crate::webhook::routing::Routing;
use crate::webhook::split::split;
use crate::webhook::{DeadLetterReason, Envelope, Webhook, samples};

pub const WEEK: Duration = Duration::from_hours(7 * 24);

/// The routes of the default configuration, except for the exchange of one status.
pub fn routing(overridden: Option<(&str, &str)>) -> Arc<Routing> {
    let mut config = Config::default();
    if let Some((status, exchange)) = overridden {
        let status_route = StatusRouting {
            exchange: Some(exchange.into()),
            routing_key: None,
        };
        config.routing.statuses.insert(status.into(), status_route);
    }
    Arc::new(settings::routing(&config).unwrap())
}

/// A session as DeskDirector sends it.
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

pub fn settle(held: &QueuedEvent, final_state: FinalState) -> Transition {
    Transition::Complete {
        seq: held.seq,
        routed_status: held.routed_status.clone(),
        final_state,
        attempts: 1,
    }
}

pub fn published(held: &QueuedEvent) -> Transition {
    settle(held, FinalState::Published)
}

pub fn deferred(held: &QueuedEvent, due_ms: u64) -> Transition {
    Transition::Reschedule {
        seq: held.seq,
        due_ms,
        attempts: 3,
        dead_letter_cause: None,
    }
}

pub fn dead_letter_cause(held: &QueuedEvent, reason: DeadLetterReason) -> Transition {
    Transition::Reschedule {
        seq: held.seq,
        due_ms: 0,
        attempts: 12,
        dead_letter_cause: Some(letter(reason)),
    }
}

pub fn letter(reason: DeadLetterReason) -> DeadLetterCause {
    DeadLetterCause {
        reason,
        detail: "no queue takes it".into(),
        at: "2026-11-22T02:00:00.123456Z".parse().unwrap(),
    }
}

pub fn request(route_id: i64) -> FetchRequest {
    FetchRequest {
        route_id,
        skip: [].into(),
        events_max: 100,
        bytes_max: 1 << 20,
        now_ms: 0,
    }
}

pub fn seqs(events: &[QueuedEvent]) -> Vec<Seq> {
    events.iter().map(|held| held.seq).collect()
}

/// A store without a writer thread.
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
        let store = open(&dir, &routing(None));
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

    /// Reopens the store, as after a restart of the process.
    pub fn reopen(self, routing: &Arc<Routing>) -> Self {
        self.store.close().unwrap();
        let store = open(&self.dir, routing);
        Self { store, ..self }
    }

    pub fn database(&self) -> PathBuf {
        self.dir.path().join("journal.db")
    }

    pub fn commit(&mut self, changes: &[Transition], webhooks: &[Webhook]) -> Committed {
        self.store
            .commit(changes, webhooks, self.now, &self.retention)
            .unwrap()
    }

    /// Appends one webhook with these sessions, each an id and a status.
    pub fn append(&mut self, sessions: &[(&str, &str)]) -> Vec<QueuedEvent> {
        let elements = sessions.iter().map(|(id, status)| session(id, status));
        let webhook = webhook(&elements.collect::<Vec<_>>());
        self.commit(&[], &[webhook]).fresh
    }

    pub fn change(&mut self, change: Transition) -> TransitionApplied {
        let applied = self.commit(&[change], &[]).applied;
        <[TransitionApplied; 1]>::try_from(applied).unwrap()[0]
    }

    pub fn reader(&self) -> Reader {
        Reader::open(&self.database(), self.store.window()).unwrap()
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

    /// The number of pending events in the window and in `pending`.
    pub fn heads(&self) -> Vec<Seq> {
        let mut heads = self.column("SELECT seq FROM pending WHERE head = 1");
        heads.extend(self.store.window().lock().unwrap().all_heads());
        heads.sort_unstable();
        heads
    }

    /// The first event of the tail.
    pub fn tail(&self) -> Seq {
        let tail = self.store.window().lock().unwrap().tail;
        tail.unwrap_or(Seq::MAX)
    }

    /// The events that are not in `completed`.
    pub fn unsettled(&self) -> Vec<Seq> {
        self.column("SELECT seq FROM events WHERE seq NOT IN (SELECT seq FROM settled) ORDER BY 1")
    }

    /// Gives every event of the window a row.
    pub fn empty_window(&mut self) {
        self.store.empty_window().unwrap();
    }

    pub fn is_balanced(&self) -> bool {
        let totals = self.store.totals();
        let accepted: u64 = totals.accepted.values().sum();
        let published: u64 = totals.published.values().sum();
        let dead_lettered: u64 = totals.dead_lettered.values().sum();
        accepted == published + dead_lettered + totals.backlog_events
    }
}

fn open(dir: &TempDir, routing: &Arc<Routing>) -> Store {
    let directory = Directory::open(dir.path()).unwrap();
    let (store, set_aside) = damage::open(&directory, routing.clone()).unwrap();
    assert_eq!(set_aside, None);
    store
}
