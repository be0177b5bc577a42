//! The durable store of accepted events. An event is stored before its 2xx is sent, and is kept
//! until it is completed (published or dead-lettered) and for the retention period after that. Only
//! this module uses `rusqlite`; it knows nothing of the broker.
//!
//! # Constraints
//!
//! - A 2xx needs an fsync, and an fsync takes milliseconds. Webhooks that wait at the same time
//!   share one (`writer`), and so do the completions that have arrived by then.
//! - The cost of SQLite is a cost per row. A webhook is one row, or one row per 256 KiB, and all
//!   completions of a commit are one row: an event that is published at the first attempt has no
//!   row of its own.
//! - The forwarder must not read back what was just written: each commit hands its events over.
//! - Memory does not grow with the backlog: the backlog window (`window`) holds at most 32,768 events,
//!   without their bodies. Events that arrive while it is full form the *tail*: they stay unread on disk.
//! - A stalled route must not block the others: an event that has been in the window for 10 seconds
//!   while the broker was accepting messages gets a row in `pending`.
//! - A million events may wait for an unavailable route or behind a rejected event of their
//!   session. Only the first pending event of each session (its *head*) is a candidate for
//!   publishing, found by route and due time. Completing a head promotes the next event of its
//!   session. The cost of a fetch depends on the batch, not on the backlog (`reader`).
//! - No reload, start or stop reads the whole backlog: rows get the routes of a new configuration
//!   in pages of 1,000, between other transactions.
//! - Totals change in the same commits as what they count (`totals`).
//!
//! # Layout
//!
//! | table | a row | written |
//! |---|---|---|
//! | `webhooks` | a webhook or a part of it: envelope, fields, bodies | once, before the 2xx |
//! | `completed` | the events that a commit completed, the webhooks it closed | in that commit |
//! | `outcomes` | an event that was not published at the first attempt | with its completion |
//! | `pending` | a pending event that was rejected or is old, or follows one | when that happens |
//!
//! # Why nothing is lost
//!
//! 1. An event of `webhooks` is pending if no run in `completed` contains its number. If a row of
//!    `completed` is lost, torn or damaged, the bridge therefore publishes the events again, under
//!    the same `message_id`; it never forgets one.
//! 2. A webhook is answered after the commit that contains its row, and an event is completed after
//!    the broker has confirmed it. In between, the event is in the tail, in the window or in
//!    `pending`, and all three change in the same transaction as the tables (`store`).
//! 3. The window can be rebuilt from the tables at any moment. This is done at a start, and after a
//!    transaction that was rolled back.
//! 4. Order within a session: the events in the window come before those with rows, or all have
//!    rows; those of the tail come last. When an event gets a row, the later events of its session
//!    in the window get one, too. An event that is read from the tail gets a row if its session has
//!    one. A commit hands over an event with its body only if the forwarder knows about the earlier
//!    events of the session.
//! 5. Retention deletes only closed webhooks: every event is completed, and the journal does not
//!    hold the only copy of a body.

pub mod archive;
mod completed;
mod control;
mod counting_filter;
mod damage;
mod directory;
mod disk_size;
mod disk_space;
mod file_system;
mod files;
mod handover;
mod interface;
mod legacy;
mod locks;
mod migration;
mod pauses;
mod reader;
mod schema;
mod shared;
mod store;
mod stored;
mod totals;
mod window;
mod writer;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{oneshot, watch};

pub use control::{ControlOutbox, ControlRequest};
pub use damage::is_known_damaged;
pub use directory::{Directory, DirectoryError, examine};
pub use disk_space::{Space, free_pages_bytes};
pub use file_system::FileSystem;
pub use files::FileError;
pub use interface::{
    Committed, DeadLetterCause, FinalState, QueuedEvent, RouteId, Seq, Transition,
    TransitionApplied,
};
pub use pauses::PauseFile;
pub use reader::{FetchRequest, Fetched, SessionBatch};
pub use schema::SchemaError;
pub use shared::{JournalFailure, ObserveCommit};
#[cfg(test)]
pub(crate) use {
    handover::strip_body,
    reader::BatchBudget,
    window::{BacklogWindow, OpenPart, Waiting},
};

use crate::config;
use crate::failpoint::{self, Failpoint};
use crate::telemetry::status::{DiskStatus, Totals};
use crate::webhook::Webhook;
use crate::webhook::routing::Routing;
use handover::Handover;
use reader::Reader;
use shared::{Guard, Shared};
use store::Store;
use writer::{Writer, WriterLimits, WriterState};

/// A handle on the journal of this process. Cheap to clone.
#[derive(Clone)]
pub struct Journal {
    requests: mpsc::Sender<writer::WriterRequest>,
    shared: Arc<Shared>,
    /// `None` once the journal is closed.
    reader: Arc<Mutex<Option<Reader>>>,
    directory: Arc<Directory>,
}

/// A journal that was just opened, with what the caller needs once.
pub struct Opened {
    /// The handle for all further calls.
    pub journal: Journal,
    /// The results of each commit. The receiver must not wait for the journal between two receives:
    /// the writer blocks while this channel is full.
    pub committed: tokio::sync::mpsc::Receiver<Committed>,
    /// The path of a damaged database that was set aside, and how many pending events were lost
    /// with it.
    pub set_aside: Option<(PathBuf, u64)>,
}

/// How long a webhook waits for another program's lock. A little less than the HTTP listener waits
/// for the journal, so that the answer can name the cause.
pub const APPEND_PATIENCE: Duration = Duration::from_millis(9_500);

/// Why a webhook was not stored. Each variant is answered with 503.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The backlog has reached `journal.backlog_bytes_max`.
    #[error("the backlog has reached `journal.backlog_bytes_max`")]
    BacklogFull,
    /// Less than `journal.disk_free_min` is free, or a write failed because the disk is full.
    #[error("too little space is free on the journal's disk (`journal.disk_free_min`)")]
    DiskFull,
    /// An I/O error of the disk, or the journal's file was removed or replaced.
    #[error("the journal cannot be written: an I/O error, or its file was removed (see the log)")]
    DiskFailing,
    /// Another program did not release its lock on the database in time.
    #[error("another program holds a write lock on journal.db")]
    Locked,
    /// The writer has ended: the process is shutting down.
    #[error("the journal is closed")]
    Closed,
}

/// Why the journal cannot be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The database cannot be used.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The operating system refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// Another program holds a lock on the database.
    #[error("{0}; end it, or wait until it is done")]
    Locked(String),
    /// SQLite failed.
    #[error("reading the journal")]
    Sqlite(#[from] rusqlite::Error),
    /// The operating system refused to start the writer's thread.
    #[error("starting the journal's thread")]
    Thread(#[source] std::io::Error),
}

/// Why a command cannot read a journal or leave a control request in it. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum CommandOpenError {
    /// The directory contains no `journal.db`.
    #[error("there is no journal in `{0}`")]
    Missing(PathBuf),
    /// The files belong to another user, or are on a network file system.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The database is not a journal, or not of a schema that this release reads.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// SQLite failed.
    #[error("reading the journal")]
    Sqlite(#[from] rusqlite::Error),
}

/// Fetching events, or leaving a control request, failed.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another program holds a lock on the database.
    #[error("{0}")]
    Locked(String),
    /// SQLite failed, for example with an I/O error.
    #[error("reading the journal")]
    Sqlite(#[from] rusqlite::Error),
}

impl JournalError {
    fn of(error: rusqlite::Error, database: &Path) -> Self {
        if locks::is_locked(&error) {
            Self::Locked(locks::writer(database))
        } else {
            Self::Sqlite(error)
        }
    }
}

impl Journal {
    /// Opens the journal in a directory, creates it if there is none, and starts its writer thread.
    /// A damaged database is set aside, and its readable events are copied into a new one.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(
        config: &config::journal::JournalConfig,
        routing: Arc<Routing>,
        observe_commit: ObserveCommit,
    ) -> Result<Opened, OpenError> {
        let directory = Directory::open(&config.dir)?;
        failpoint::pass(Failpoint::JournalOpenBefore);
        let (store, set_aside) = damage::open(&directory, routing)
            .map_err(|error| named(error, &directory.database()))?;
        failpoint::pass(Failpoint::JournalOpenAfter);
        let (journal, committed) = Self::start(config, directory, store, observe_commit)?;
        Ok(Opened {
            journal,
            committed,
            set_aside,
        })
    }

    fn start(
        config: &config::journal::JournalConfig,
        directory: Directory,
        store: Store,
        observe_commit: ObserveCommit,
    ) -> Result<(Self, tokio::sync::mpsc::Receiver<Committed>), OpenError> {
        let database = directory.database();
        // SQLite syncs the directory for its WAL, too, but would not report a failure.
        let syncing = FileError::of("syncing", &config.dir);
        files::sync_directory_of(&database).map_err(syncing)?;
        let reader = Reader::open(&database, store.window())?;
        let shared = Arc::new(Shared::new(
            store.counts(),
            store.foreign_locks(),
            observe_commit,
        ));
        let (requests, inbox) = mpsc::channel();
        let (handover, committed) = Handover::new();
        let mut writer = Writer {
            store,
            state: WriterState::of(&database),
            database,
            limits: WriterLimits::of(config),
            requests: inbox,
            handover,
            shared: shared.clone(),
        };
        // Or a scrape before the thread's first tick would show a disk without free space.
        writer.measure_free_space();
        let guard = Guard(shared.clone());
        thread::Builder::new()
            .name("journal".into())
            .spawn(move || {
                let _guard = guard;
                writer.run();
            })
            .map_err(OpenError::Thread)?;
        let journal = Self {
            requests,
            shared,
            reader: Arc::new(Mutex::new(Some(reader))),
            directory: Arc::new(directory),
        };
        Ok((journal, committed))
    }

    /// Stores a whole webhook; returns after the fsync of the commit that contains all its events.
    ///
    /// # Errors
    /// No event of the webhook is stored then.
    pub async fn append(&self, webhook: Webhook) -> Result<(), WriteError> {
        self.append_with(webhook, Box::new(())).await
    }

    /// Like [`Journal::append`]. Drops `reserved` when the journal no longer needs the webhook:
    /// right before this returns, or later if the caller has stopped waiting.
    ///
    /// # Errors
    /// No event of the webhook is stored then.
    pub async fn append_with(
        &self,
        webhook: Webhook,
        reserved: Box<dyn Send>,
    ) -> Result<(), WriteError> {
        let since = Instant::now();
        self.ask(|reply| {
            let appender = writer::Appender {
                since,
                reserved,
                reply,
            };
            writer::WriterRequest::Append(webhook, appender)
        })
        .await
    }

    /// Queues state changes of events. They are acknowledged through `Opened::committed`, after the
    /// commit that contains them.
    pub fn change(&self, changes: Vec<Transition>) {
        // The writer is gone only after a failure, and that failure ends the process.
        let _ = self.requests.send(writer::WriterRequest::Changes(changes));
    }

    /// Records whether events can be published now. While they cannot, events in the window get no
    /// rows: no route would make room for another one.
    pub fn set_connected(&self, is_connected: bool) {
        self.shared.set_connected(is_connected);
    }

    /// Fetches the next events of a route; none from a closed journal.
    ///
    /// # Errors
    /// The database cannot be read. If it is damaged, [`Journal::failures`] reports that, too.
    ///
    /// # Panics
    /// If an earlier fetch panicked.
    pub async fn fetch(&self, request: FetchRequest) -> Result<Fetched, JournalError> {
        let journal = self.clone();
        tokio::task::spawn_blocking(move || journal.read(|reader| reader.fetch(&request)))
            .await
            .expect("a fetch is not cancelled and does not panic")
    }

    /// The routes that have heads; none of a closed journal.
    ///
    /// # Errors
    /// The database cannot be read. If it is damaged, [`Journal::failures`] reports that, too.
    ///
    /// # Panics
    /// If an earlier fetch panicked.
    pub fn routes(&self) -> Result<Vec<RouteId>, JournalError> {
        self.read(|reader| reader.routes())
    }

    /// Applies a new configuration: each pending event gets its new route before it is fetched
    /// again. The caller must discard the events that it fetched before, and fetch them again.
    ///
    /// # Errors
    /// The change could not be written; the old routes stay in force.
    pub async fn set_routing(&self, routing: Arc<Routing>) -> Result<(), WriteError> {
        self.ask(|reply| writer::WriterRequest::SetRouting(routing, reply))
            .await
    }

    /// The counts after the last commit.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.shared.counts.totals()
    }

    /// Why a webhook would be refused now; `None` if it would be accepted.
    #[must_use]
    pub fn refusal(&self) -> Option<WriteError> {
        self.shared.refusal()
    }

    /// Why a webhook of ordinary size would not be stored now, as text for operators. Also reports
    /// a lock or a write that has lasted for almost [`APPEND_PATIENCE`].
    #[must_use]
    pub fn obstacle(&self) -> Option<String> {
        self.shared.obstacle()
    }

    /// For how long the writer has been writing the current group; zero between two groups.
    #[must_use]
    pub fn writing_for(&self) -> Duration {
        self.shared.writing_for().unwrap_or_default()
    }

    /// Which other program's lock blocks the writer or the reset of the WAL, as a sentence.
    #[must_use]
    pub fn foreign_locks(&self) -> Option<String> {
        self.shared.foreign_locks.sentence()
    }

    /// Free space and sizes at the writer's last check: after each commit, and every 500 ms.
    #[must_use]
    pub fn disk(&self) -> DiskStatus {
        **self.shared.disk.load()
    }

    /// Seconds since the oldest pending event was received; 0 without a backlog.
    #[must_use]
    pub fn oldest_seconds(&self) -> f64 {
        let oldest = self.shared.oldest.load();
        oldest.as_deref().map_or(0.0, |oldest| {
            let age = Timestamp::now().duration_since(*oldest);
            age.as_secs_f64().max(0.0)
        })
    }

    /// Changes at most once: to the reason why the journal cannot continue in this process.
    #[must_use]
    pub fn failures(&self) -> watch::Receiver<Option<JournalFailure>> {
        self.shared.failure.subscribe()
    }

    /// Writes the queued changes and closes the database.
    ///
    /// # Panics
    /// If a fetch panicked.
    pub async fn close(&self) {
        // The reader's connection is closed first: the last connection to close checkpoints the
        // WAL, and that must be the writer's.
        let reader = self.reader.clone();
        let close = move || drop(reader.lock().expect("no fetch has panicked").take());
        let _ = tokio::task::spawn_blocking(close).await;
        let (done, closed) = oneshot::channel();
        if self
            .requests
            .send(writer::WriterRequest::Stop(done))
            .is_ok()
        {
            let _ = closed.await;
        }
    }

    fn read<T: Default>(
        &self,
        read: impl FnOnce(&mut Reader) -> rusqlite::Result<T>,
    ) -> Result<T, JournalError> {
        let mut reader = self.reader.lock().expect("no fetch has panicked");
        let Some(reader) = reader.as_mut() else {
            return Ok(T::default());
        };
        let database = self.directory.database();
        read(reader)
            .inspect_err(|error| {
                if damage::is_damage(error) {
                    damage::suspect(&self.directory.database());
                    self.shared.fail(error.to_string(), true);
                }
            })
            .map_err(|error| JournalError::of(error, &database))
    }

    async fn ask(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<(), WriteError>>) -> writer::WriterRequest,
    ) -> Result<(), WriteError> {
        let (reply, answer) = oneshot::channel();
        self.requests
            .send(request(reply))
            .map_err(|_| WriteError::Closed)?;
        answer.await.unwrap_or(Err(WriteError::Closed))
    }
}

/// Names the program that holds the lock; SQLite reports only that the database is busy.
fn named(error: OpenError, database: &Path) -> OpenError {
    match &error {
        OpenError::Sqlite(source) | OpenError::Schema(SchemaError::Open { source, .. })
            if locks::is_locked(source) =>
        {
            OpenError::Locked(locks::writer(database))
        }
        _ => error,
    }
}
