//! The writer's half of the database: whole groups of changes and webhooks, one transaction each.
//! Knows SQL and the queue's rules, no threads and no time but what it is told.

mod append;
mod carry;
mod grant;
mod lock;
mod reroute;
mod retention;
mod sessions;
mod settle;
mod wal;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension};

#[cfg(test)]
pub(super) use append::FIRST_OF;
pub(super) use lock::{LOCK_PATIENCE, Others, START_PATIENCE, is_locked};
pub(super) use retention::Retention;

use self::sessions::Sessions;
use super::rows::{Change, Committed, RouteId};
use super::totals::{Counters, Counts, Name};
use super::{stored, weight};
use crate::failpoint::{self, Place};
use crate::telemetry::status::Totals;
use crate::webhook::Webhook;
use crate::webhook::routing::{Route, Routing};

/// Settled events a group may delete in any case.
const EXPIRED_MIN: usize = 64;
/// The same while the disk is short of room.
const SHORT_EVENTS_MAX: usize = 2000;

/// The only connection that writes.
#[derive(Debug)]
pub(super) struct Store {
    database: Connection,
    path: PathBuf,
    others: Arc<Others>,
    routing: Arc<Routing>,
    /// The numbers of routes that were used lately.
    routes: HashMap<Arc<Route>, RouteId>,
    counters: Counters,
    sessions: Sessions,
    is_retaining: bool,
    /// How long the last commit took, fsync included.
    pub(super) commit_time: Duration,
}

impl Store {
    /// Takes over an open database. Delays of an earlier process mean nothing to this one's
    /// clock: what was refused is due at once.
    pub(super) fn new(
        database: Connection,
        routing: Arc<Routing>,
        is_retaining: bool,
    ) -> rusqlite::Result<Self> {
        let mut store = Self {
            counters: Counters::load(&database)?,
            sessions: Sessions::unknown(),
            path: database.path().map(PathBuf::from).unwrap_or_default(),
            others: Arc::default(),
            database,
            routing,
            routes: HashMap::new(),
            is_retaining,
            commit_time: Duration::ZERO,
        };
        store.wait_for_the_lock()?;
        store.in_transaction(|store| {
            store.catch_up_with_rows()?;
            store.weigh_rows()?;
            store.forget_delays()?;
            store.grant()?;
            store.reroute()
        })?;
        Ok(store)
    }

    /// A counter that is behind the rows would have every further webhook refused.
    fn catch_up_with_rows(&mut self) -> rusqlite::Result<()> {
        let newest: Option<i64> =
            self.database
                .query_row("SELECT max(seq) FROM events", [], |row| row.get(0))?;
        let behind = newest.unwrap_or(0) - self.counters.get(Name::LastSeq);
        if behind > 0 {
            self.counters.add(Name::LastSeq, behind);
        }
        Ok(())
    }

    /// Of a journal whose sizes were counted in another way.
    fn weigh_rows(&mut self) -> rusqlite::Result<()> {
        if !self.counters.is_known(Name::BacklogEvents) {
            let count = "SELECT count(*) FROM pending";
            let waiting = self.database.query_row(count, [], |row| row.get(0))?;
            self.counters.add(Name::BacklogEvents, waiting);
        }
        for (name, rows) in [
            (Name::BacklogBytes, "SELECT bytes FROM pending"),
            (
                Name::RetainedBytes,
                "SELECT bytes FROM settled WHERE kept = 0",
            ),
        ] {
            if self.counters.is_known(name) {
                continue;
            }
            let mut statement = self.database.prepare(rows)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                self.counters.add(name, weight::of_row(row.get(0)?));
            }
        }
        Ok(())
    }

    /// Commits a group: its changes first, then its webhooks, so that an event whose predecessor
    /// is settled here is the head of its session. Every change is acknowledged.
    pub(super) fn commit(
        &mut self,
        changes: &[Change],
        webhooks: &[Webhook],
        now: Timestamp,
        retention: &Retention,
    ) -> rusqlite::Result<Committed> {
        self.in_transaction(|store| {
            let mut committed = Committed::default();
            committed.acks.reserve(changes.len());
            for change in changes {
                committed.acks.push(store.change(change, now)?);
            }
            // Twice what is settled, so that it catches up; never so much that answers wait. Before
            // what comes in, which then takes the pages of what has gone.
            let limit = match retention.shortage {
                0 => EXPIRED_MIN.max(2 * changes.len()),
                _ => SHORT_EVENTS_MAX,
            };
            store.expire(now, retention, limit)?;
            for event in webhooks.iter().flat_map(|webhook| &webhook.events) {
                committed.fresh.push(store.append(event)?);
            }
            Ok(committed)
        })
    }

    /// Follows a new configuration: every unsettled event gets the route it has by now.
    pub(super) fn set_routing(&mut self, routing: Arc<Routing>) -> rusqlite::Result<()> {
        let before = std::mem::replace(&mut self.routing, routing);
        let result = self.in_transaction(Self::reroute);
        if result.is_err() {
            self.routing = before;
        }
        result
    }

    /// Writes something, to see whether the disk takes it.
    pub(super) fn probe(&mut self) -> rusqlite::Result<()> {
        self.in_transaction(|store| {
            let probe = "INSERT INTO settings (name, value) VALUES ('probe', '1')
                         ON CONFLICT DO UPDATE SET value = value + 1";
            store.database.execute(probe, []).map(drop)
        })
    }

    pub(super) fn totals(&self) -> Totals {
        self.counters.counts().totals()
    }

    pub(super) fn counts(&self) -> Counts {
        self.counters.counts().clone()
    }

    pub(super) fn backlog_bytes(&self) -> u64 {
        u64::try_from(self.counters.get(Name::BacklogBytes)).unwrap_or_default()
    }

    /// What is settled, kept and could go, on the disk.
    pub(super) fn retained_bytes(&self) -> u64 {
        u64::try_from(self.counters.get(Name::RetainedBytes)).unwrap_or_default()
    }

    /// When the oldest unsettled event was received.
    pub(super) fn oldest(&self) -> rusqlite::Result<Option<Timestamp>> {
        self.database
            .prepare_cached(
                "SELECT received_at FROM events WHERE seq = (SELECT min(seq) FROM pending)",
            )?
            .query_row([], |row| row.get(0).map(stored::timestamp))
            .optional()
            .map(Option::flatten)
    }

    /// Closes the database, everything in one file.
    pub(super) fn close(self) -> rusqlite::Result<()> {
        self.database.flush_prepared_statement_cache();
        self.database.close().map_err(|(_, error)| error)
    }

    #[cfg(test)]
    pub(super) fn database(&self) -> &Connection {
        &self.database
    }

    fn in_transaction<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        self.begin()?;
        let result = work(self).and_then(|done| {
            self.counters.store(&self.database)?;
            failpoint::pass(Place::JournalCommitBefore);
            let began = Instant::now();
            self.execute("COMMIT")?;
            self.commit_time = began.elapsed();
            failpoint::pass(Place::JournalCommitAfter);
            Ok(done)
        });
        if result.is_ok() {
            self.counters.commit();
            self.sessions.commit();
            self.know_sessions();
            return result;
        }
        self.counters.roll_back();
        self.sessions.roll_back();
        self.routes.clear();
        if !self.database.is_autocommit() {
            // SQLite has perhaps rolled back by itself; then this is refused.
            let _ = self.database.execute_batch("ROLLBACK");
        }
        result
    }

    /// Sessions are counted from a moment at which none waits. Counters may have been wrong once:
    /// the rows say whether that is so.
    fn know_sessions(&mut self) {
        if self.sessions.is_counting() || self.counters.get(Name::BacklogEvents) > 0 {
            return;
        }
        let is_any = "SELECT EXISTS (SELECT 1 FROM pending)";
        let is_any = self.database.query_row(is_any, [], |row| row.get(0));
        // What cannot be read now is asked again after the next commit.
        if is_any == Ok(false) {
            self.sessions.begin();
        }
    }

    fn execute(&self, statement: &str) -> rusqlite::Result<()> {
        self.database
            .prepare_cached(statement)?
            .execute([])
            .map(drop)
    }
}
