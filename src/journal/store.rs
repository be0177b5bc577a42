//! The writer's access to the database: commits groups of changes and webhooks, one transaction
//! each. Knows SQL and the rules of the queue, but no threads, and no time except what it is given.

mod append;
mod control;
mod import;
mod load;
mod lock;
mod pending;
mod reroute;
mod retention;
mod transitions;
mod wal;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension};

#[cfg(test)]
pub(super) use pending::FIRST_OF;
pub(super) use reroute::{REROUTED_EVENTS_MAX, routes_of_rows};
pub(super) use retention::Retention;

use self::retention::Swept;
use super::completed::Completion;
use super::interface::{Committed, RouteId, Seq, Transition};
use super::locks::ForeignLocks;
use super::totals::{Counters, Counts, Name};
use super::window::BacklogWindow;
use super::{archive, disk_size, stored};
use crate::failpoint::{self, Failpoint};
use crate::telemetry::status::Totals;
use crate::webhook::Webhook;
use crate::webhook::routing::{Route, Routing};

/// Events in the window, at most; later ones are read from disk when there is room.
const WINDOW_EVENTS_MAX: usize = 32_768;
/// Events that have been in the window for longer get rows, so that a stalled route leaves room for
/// the others.
pub(super) const WINDOW_AGE_MAX: Duration = Duration::from_secs(10);
/// Rows that a transaction may write for this reason, however little it appends.
const AGED_EVENTS_MIN: usize = 256;
/// Events of the tail that a transaction may read, however little it appends.
const LOADED_EVENTS_MIN: usize = 1000;
/// Events of the tail that a transaction reads, at most: their fields are all in memory for a
/// moment.
const LOADED_EVENTS_MAX: usize = 4096;
/// Completed events that a group may delete, however little it changes.
const EXPIRED_MIN: usize = 64;
/// Completed events that a group may delete while the disk is short of space.
const SHORT_EVENTS_MAX: usize = 2000;
/// `totals.window_first` is written only when it is behind by this many events.
const WINDOW_NOTE_EVENTS: i64 = 1024;

/// The only connection that writes to the tables.
#[derive(Debug)]
pub(super) struct Store {
    database: Connection,
    path: PathBuf,
    foreign_locks: Arc<ForeignLocks>,
    routing: Arc<Routing>,
    /// Numbers of routes that were used recently.
    routes: HashMap<Arc<Route>, RouteId>,
    counters: Counters,
    /// The window after the last commit, as the readers see it.
    shared_window: Arc<Mutex<BacklogWindow>>,
    /// The window during a transaction; otherwise empty.
    window: BacklogWindow,
    window_events_max: usize,
    /// Whether events that have been in the window for too long get rows.
    is_ageing: bool,
    /// Whether the window could not be read back from the database after an error.
    is_window_lost: bool,
    /// The window was lost for a while. Readers found no heads in it, and the forwarder has not
    /// been notified of them since.
    has_unannounced_heads: bool,
    completion: Completion,
    swept: Swept,
    /// The duration of the last commit, fsync included.
    pub(super) commit_time: Duration,
}

impl Store {
    /// Takes over an open database. Due times of an earlier process do not apply to this one's
    /// clock: rescheduled events are due at once.
    pub(super) fn new(database: Connection, routing: Arc<Routing>) -> rusqlite::Result<Self> {
        let mut store = Self {
            counters: Counters::load(&database)?,
            path: database.path().map(PathBuf::from).unwrap_or_default(),
            foreign_locks: Arc::default(),
            database,
            routing,
            routes: HashMap::new(),
            shared_window: Arc::default(),
            window: BacklogWindow::default(),
            window_events_max: WINDOW_EVENTS_MAX,
            is_ageing: true,
            is_window_lost: false,
            has_unannounced_heads: false,
            completion: Completion::default(),
            swept: Swept::default(),
            commit_time: Duration::ZERO,
        };
        store.wait_for_the_lock()?;
        store.in_transaction(|store| {
            store.catch_up_with_rows()?;
            store.find_last_completed()?;
            store.end_delays()?;
            store.begin_reroute()?;
            store.load_window()?;
            store.forget_routes()?;
            archive::name_journal(&store.database)?;
            store.count_rows()?;
            store.apply_requests()
        })?;
        Ok(store)
    }

    /// Raises the counter of event numbers to the newest row. If it were behind, every webhook
    /// would be refused because its number exists already.
    fn catch_up_with_rows(&mut self) -> rusqlite::Result<()> {
        let newest = stored::newest(&self.database)?;
        self.counters.raise(Name::LastSeq, newest);
        Ok(())
    }

    /// Commits a group: its changes first, then its webhooks. An event whose predecessor is
    /// completed in the same group is therefore the head of its session. Every change is
    /// acknowledged.
    pub(super) fn commit(
        &mut self,
        changes: &[Transition],
        webhooks: &[Webhook],
        now: Timestamp,
        retention: &Retention,
    ) -> rusqlite::Result<Committed> {
        let committed = self.in_transaction(|store| {
            let mut committed = Committed::default();
            committed.applied.reserve(changes.len());
            for change in changes {
                committed.applied.push(store.change(change)?);
            }
            store.write_completion(now)?;
            // Twice the number of changes, so that retention catches up, but never so much that
            // answers are delayed. Deleted before the webhooks are inserted, which then reuse the
            // freed pages.
            let limit = match retention.shortage {
                0 => EXPIRED_MIN.max(2 * changes.len()),
                _ => SHORT_EVENTS_MAX,
            };
            store.expire(now, retention, limit)?;
            for webhook in webhooks {
                store.append(&webhook.events, &mut committed.fresh)?;
            }
            let events = webhooks.iter().map(|webhook| webhook.events.len()).sum();
            committed.behind.extend(store.renew_window(events)?);
            Ok(committed)
        })?;
        self.has_unannounced_heads = false;
        Ok(committed)
    }

    /// Does what each commit does to the window: gives rows to events that have been in it for too
    /// long, and reads the tail as far as there is room. Returns the routes with new heads; `None`
    /// if there was nothing to do.
    pub(super) fn tidy_window(&mut self) -> rusqlite::Result<Option<BTreeSet<RouteId>>> {
        let window = self.lock_window();
        let is_old = self.is_ageing && !window.older_than(WINDOW_AGE_MAX, 1).is_empty();
        let is_short = self.is_short_of_events(&window);
        drop(window);
        if !is_old && !is_short && !self.has_unannounced_heads {
            return Ok(None);
        }
        let routes = self.in_transaction(|store| store.renew_window(0))?;
        self.has_unannounced_heads = false;
        Ok(Some(routes))
    }

    /// The limits are twice what was appended in the same transaction: a stalled route must not
    /// fill the window faster than it is emptied.
    fn renew_window(&mut self, appended: usize) -> rusqlite::Result<BTreeSet<RouteId>> {
        if self.is_ageing {
            self.give_rows_to_aged(WINDOW_AGE_MAX, AGED_EVENTS_MIN.max(2 * appended))?;
        }
        let loaded_max = (2 * appended).clamp(LOADED_EVENTS_MIN, LOADED_EVENTS_MAX);
        let mut routes = self.load_tail(loaded_max)?;
        if self.has_unannounced_heads {
            routes.extend(self.window.routes());
        }
        Ok(routes)
    }

    /// Sets whether events that have been in the window for too long get rows. Without a broker
    /// that would be useless: no route makes room for another one.
    pub(super) fn set_ageing(&mut self, is_ageing: bool) {
        self.is_ageing = is_ageing;
    }

    /// Applies a new configuration: each pending event has its new route when it is fetched. The
    /// caller must then call `reroute` until it returns `None`.
    pub(super) fn set_routing(&mut self, routing: Arc<Routing>) -> rusqlite::Result<()> {
        let before = std::mem::replace(&mut self.routing, routing);
        let result = self.in_transaction(|store| {
            store.begin_reroute()?;
            store.load_window()
        });
        if result.is_err() {
            self.routing = before;
            // The window has the routes of the configuration that was not written.
            let _ = self.with_window(Self::reload_window);
        }
        result
    }

    /// Writes one row, to test whether the disk accepts writes.
    pub(super) fn probe(&mut self) -> rusqlite::Result<()> {
        self.in_transaction(|store| {
            let probe = "INSERT INTO settings (name, value) VALUES ('probe', '1')
                         ON CONFLICT DO UPDATE SET value = value + 1";
            store.database.execute(probe, []).map(drop)
        })
    }

    pub(super) fn totals(&self) -> Totals {
        self.counters.committed.totals()
    }

    pub(super) fn counts(&self) -> Counts {
        self.counters.committed.clone()
    }

    pub(super) fn window(&self) -> Arc<Mutex<BacklogWindow>> {
        Arc::clone(&self.shared_window)
    }

    pub(super) fn backlog_bytes(&self) -> u64 {
        u64::try_from(self.counters.get(Name::BacklogBytes)).unwrap_or_default()
    }

    /// The size on disk of the completed webhooks that retention could delete.
    pub(super) fn retained_bytes(&self) -> u64 {
        u64::try_from(self.counters.get(Name::RetainedBytes)).unwrap_or_default()
    }

    /// When the oldest pending event was received.
    pub(super) fn oldest(&self) -> rusqlite::Result<Option<Timestamp>> {
        let of_rows = self
            .database
            .prepare_cached(
                "SELECT received_at FROM webhooks WHERE first <= (SELECT min(seq) FROM pending)
                 ORDER BY first DESC LIMIT 1",
            )?
            .query_row([], |row| row.get(0).map(stored::timestamp))
            .optional()?
            .flatten();
        let of_window = self.lock_window().oldest().map(|(_, at)| at);
        Ok([of_rows, of_window].into_iter().flatten().min())
    }

    /// Closes the database; the WAL is checkpointed, so that all data is in one file.
    pub(super) fn close(self) -> rusqlite::Result<()> {
        self.database.flush_prepared_statement_cache();
        self.database.close().map_err(|(_, error)| error)
    }

    /// Reads the window again, as after a transaction that was rolled back.
    #[cfg(test)]
    pub(super) fn load_window_now(&mut self) {
        self.with_window(Self::reload_window).unwrap();
    }

    /// Gives every event of the window a row, then reads the tail.
    #[cfg(test)]
    pub(super) fn empty_window(&mut self) -> rusqlite::Result<()> {
        self.in_transaction(|store| {
            store.give_rows_to_aged(Duration::ZERO, usize::MAX)?;
            store.load_tail(LOADED_EVENTS_MIN).map(drop)
        })
    }

    /// Lets the events in the window appear older.
    #[cfg(test)]
    pub(super) fn age_window_by(&mut self, age: Duration) {
        self.lock_window().age_by(age);
    }

    /// Sets the size of the window.
    #[cfg(test)]
    pub(super) fn bound_window(&mut self, events_max: usize) {
        self.window_events_max = events_max;
    }

    #[cfg(test)]
    pub(super) fn database(&self) -> &Connection {
        &self.database
    }

    /// Runs `work` in a transaction. Readers wait until it ends, so that the window and the
    /// database always show them the same commit.
    fn in_transaction<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        if self.is_window_lost {
            self.with_window(Self::reload_window)?;
        }
        self.begin()?;
        self.with_window(|store| {
            let (swept, rerouting, tail) = (store.swept, store.window.rerouting, store.window.tail);
            let result = work(store).and_then(|done| store.end_transaction().map(|()| done));
            if result.is_ok() {
                store.counters.commit();
                store.window.sessions_with_rows.commit();
                store.load_sessions();
                return result;
            }
            store.counters.roll_back();
            store.window.sessions_with_rows.roll_back();
            store.routes.clear();
            store.swept = swept;
            store.window.rerouting = rerouting;
            store.window.tail = tail;
            store.completion = Completion::default();
            if !store.database.is_autocommit() {
                // SQLite may have rolled back by itself; then this statement fails, which does not
                // matter.
                let _ = store.database.execute_batch("ROLLBACK");
            }
            // Another process may have written events: an append with their numbers fails once.
            let _ = store.catch_up_with_rows();
            let _ = store.reload_window();
            result
        })
    }

    fn end_transaction(&mut self) -> rusqlite::Result<()> {
        self.note_window();
        self.counters.store(&self.database)?;
        failpoint::pass(Failpoint::JournalCommitBefore);
        let began = Instant::now();
        self.execute("COMMIT")?;
        self.commit_time = began.elapsed();
        failpoint::pass(Failpoint::JournalCommitAfter);
        Ok(())
    }

    /// Reads the window again after an error. Without its window, the store cannot work: if this
    /// fails, the next transaction first tries it again.
    fn reload_window(&mut self) -> rusqlite::Result<()> {
        let result = self.load_window();
        self.is_window_lost = result.is_err();
        self.has_unannounced_heads |= self.is_window_lost;
        result
    }

    /// Runs `work` while readers cannot see the window.
    fn with_window<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let shared_window = Arc::clone(&self.shared_window);
        let mut shared_window = shared_window.lock().unwrap_or_else(PoisonError::into_inner);
        self.window = std::mem::take(&mut *shared_window);
        let result = work(self);
        *shared_window = std::mem::take(&mut self.window);
        result
    }

    fn lock_window(&self) -> MutexGuard<'_, BacklogWindow> {
        self.shared_window
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Records from which number on the window must be read at a start. Every event before it is
    /// completed or has a row in `pending`.
    fn note_window(&mut self) {
        let first = self.window.oldest().map(|(first, _)| first);
        let first = first.into_iter().chain(self.window.tail).min();
        let first = first.unwrap_or(self.counters.get(Name::LastSeq) + 1);
        let ahead = first - self.counters.get(Name::WindowFirst);
        if !(0..WINDOW_NOTE_EVENTS).contains(&ahead) {
            self.counters.add(Name::WindowFirst, ahead);
        }
    }

    /// Starts the counting filter when `pending` is empty.
    fn load_sessions(&mut self) {
        if self.window.sessions_with_rows.is_counting() {
            return;
        }
        // If the query fails, it is made again after the next commit.
        if self.is_any_pending(Seq::MIN, Seq::MAX) == Ok(false) {
            self.window.sessions_with_rows.begin();
        }
    }

    fn execute(&self, statement: &str) -> rusqlite::Result<()> {
        self.database
            .prepare_cached(statement)?
            .execute([])
            .map(drop)
    }
}
