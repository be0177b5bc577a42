//! The disk: holds every accepted event from before its 2xx until it is settled, then for a
//! while. The only room that names rusqlite; it knows nothing of brokers.
//!
//! Constraints it is built around:
//!
//! - A 2xx needs an fsync, and an fsync costs milliseconds: webhooks that wait together share one
//!   (`writer`), and so do the settlements of what was published meanwhile.
//! - The forwarder must not read back what was just written: each commit hands it over.
//! - A million events may be parked behind a closed route or a refused session. Only the first
//!   unsettled event of each session (its *head*) is a candidate, found through an index by route
//!   and due time; settling a head promotes the next one. Taking costs the window (`reader`).
//! - Totals change in the same commits as what they count (`totals`).

pub mod archive;
mod damage;
mod directory;
mod file_system;
mod files;
mod handover;
mod locks;
mod reader;
mod rows;
mod schema;
mod shared;
mod space;
mod store;
mod stored;
mod totals;
mod weight;
mod wishes;
mod writer;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{oneshot, watch};

pub use directory::{Directory, DirectoryError, examine};
pub use file_system::FileSystem;
pub use reader::{Request, Run, Taken};
pub use rows::{Ack, Change, Committed, Condemned, Held, RouteId, Seq, Settlement};
pub use schema::SchemaError;
pub use shared::{Failure, ObserveCommit};
pub use space::{Space, free_pages_bytes};
pub use wishes::{Wish, WishList};

use crate::config;
use crate::failpoint::{self, Place};
use crate::telemetry::status::{DiskStatus, Totals};
use crate::webhook::Webhook;
use crate::webhook::routing::Routing;
use handover::Handover;
use reader::Reader;
use shared::Shared;
use store::Store;
use writer::{Limits, State, Writer};

/// A handle on the journal of this process. Cheap to clone.
#[derive(Clone)]
pub struct Journal {
    requests: mpsc::Sender<writer::Request>,
    shared: Arc<Shared>,
    /// `None` once the journal is closed.
    reader: Arc<Mutex<Option<Reader>>>,
    directory: Arc<Directory>,
}

/// A journal that was just opened.
pub struct Opened {
    /// The handle.
    pub journal: Journal,
    /// What each commit brings; to be received without ever waiting for the journal meanwhile.
    pub committed: tokio::sync::mpsc::Receiver<Committed>,
    /// A damaged database that was set aside, and how many unsettled events were lost with it.
    pub set_aside: Option<(PathBuf, u64)>,
}

/// How long a webhook waits for the lock of another program. A little less than the listener waits
/// for the journal, so that the cause can be told.
pub const APPEND_PATIENCE: Duration = Duration::from_millis(9_500);

/// Why a webhook is not held. All of them are answered 503.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The unsettled part has reached `journal.backlog_bytes_max`.
    #[error("the journal's backlog is full")]
    BacklogFull,
    /// Less than `journal.disk_free_min` is free, or the disk took no more.
    #[error("the journal's disk is full")]
    DiskFull,
    /// The disk fails.
    #[error("the journal's disk fails")]
    DiskFailing,
    /// Another program did not let go of the database in time.
    #[error("another program holds a write lock on journal.db")]
    Locked,
    /// The process is going down.
    #[error("the journal is closed")]
    Closed,
}

/// Why the journal cannot be opened. Nothing was changed then.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The database cannot be used.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// A damaged database could not be set aside.
    #[error("setting the damaged `{path}` aside")]
    SetAside {
        /// The database.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Another program does not let go of the database.
    #[error("{0}; end it, or wait until it is done")]
    Locked(String),
    /// SQLite failed.
    #[error("reading the journal")]
    Sqlite(#[from] rusqlite::Error),
    /// The operating system gives no thread.
    #[error("starting the journal's thread")]
    Thread(#[source] std::io::Error),
}

/// Why a command cannot look into a journal, or leave a wish there. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum VisitError {
    /// There is none.
    #[error("there is no journal in `{0}`")]
    Missing(PathBuf),
    /// It is not ours to look at.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The database is not one that this release knows.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// SQLite failed.
    #[error("reading the journal")]
    Sqlite(#[from] rusqlite::Error),
}

/// Taking events, or leaving a wish, failed.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// Another program does not let go of the database.
    #[error("{0}")]
    Locked(String),
    /// The disk's fault.
    #[error("reading the journal")]
    Sqlite(#[from] rusqlite::Error),
}

impl TakeError {
    fn of(error: rusqlite::Error, database: &Path) -> Self {
        if store::is_locked(&error) {
            Self::Locked(locks::writer(database))
        } else {
            Self::Sqlite(error)
        }
    }
}

impl Journal {
    /// Opens the journal in a directory, makes it if there is none, and starts its thread.
    /// A damaged database is set aside and what is readable of it carried over.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(
        config: &config::journal::Journal,
        routing: Arc<Routing>,
        observe_commit: ObserveCommit,
    ) -> Result<Opened, OpenError> {
        let directory = Directory::open(&config.dir)?;
        let is_retaining = !config.retention.is_zero();
        failpoint::pass(Place::JournalOpenBefore);
        let (store, set_aside) = damage::open(&directory, routing, is_retaining)
            .map_err(|error| named(error, &directory.database()))?;
        failpoint::pass(Place::JournalOpenAfter);
        let (journal, committed) = Self::start(config, directory, store, observe_commit)?;
        Ok(Opened {
            journal,
            committed,
            set_aside,
        })
    }

    fn start(
        config: &config::journal::Journal,
        directory: Directory,
        store: Store,
        observe_commit: ObserveCommit,
    ) -> Result<(Self, tokio::sync::mpsc::Receiver<Committed>), OpenError> {
        let database = directory.database();
        let reader = Reader::open(&database)?;
        // SQLite does so for its log, too, but would not say if it failed.
        directory.sync()?;
        let shared = Arc::new(Shared::new(store.counts(), store.others(), observe_commit));
        let (requests, inbox) = mpsc::channel();
        let (handover, receiver) = Handover::new();
        let writer = Writer {
            store,
            state: State::of(&database),
            database,
            limits: Limits::of(config),
            requests: inbox,
            handover,
            shared: shared.clone(),
        };
        let guard = shared.guard();
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
        Ok((journal, receiver))
    }

    /// Holds a whole webhook; returns after the commit that has all its events was fsynced.
    ///
    /// # Errors
    /// Nothing of it is held then.
    pub async fn append(&self, webhook: Webhook) -> Result<(), AppendError> {
        self.append_with(webhook, Box::new(())).await
    }

    /// As [`Journal::append`]. Drops `reserved` when the journal is done with the webhook, right
    /// before this returns, or later if the caller has stopped waiting.
    ///
    /// # Errors
    /// Nothing of it is held then.
    pub async fn append_with(
        &self,
        webhook: Webhook,
        reserved: Box<dyn Send>,
    ) -> Result<(), AppendError> {
        let since = Instant::now();
        self.ask(|reply| {
            let appender = writer::Appender {
                since,
                reserved,
                reply,
            };
            writer::Request::Append(webhook, appender)
        })
        .await
    }

    /// Says what has become of events; acknowledged through the hand-over of a later commit.
    pub fn change(&self, changes: Vec<Change>) {
        // A writer that is gone has failed, and the process ends because of that.
        let _ = self.requests.send(writer::Request::Changes(changes));
    }

    /// Takes the next events of a route; none from a closed journal.
    ///
    /// # Errors
    /// The database cannot be read. If it is damaged, that is a failure of the journal too.
    ///
    /// # Panics
    /// If an earlier take panicked.
    pub async fn take(&self, request: Request) -> Result<Taken, TakeError> {
        let journal = self.clone();
        let taken =
            tokio::task::spawn_blocking(move || journal.read(|reader| reader.take(&request)));
        taken
            .await
            .expect("a take is not cancelled and does not panic")
    }

    /// The routes that have something to publish; none of a closed journal.
    ///
    /// # Errors
    /// The database cannot be read. If it is damaged, that is a failure of the journal too.
    ///
    /// # Panics
    /// If an earlier take panicked.
    pub fn routes(&self) -> Result<Vec<RouteId>, TakeError> {
        self.read(|reader| reader.routes())
    }

    /// Follows a new configuration: every unsettled event gets the route it has by now. Whoever
    /// took events before must forget and take them again.
    ///
    /// # Errors
    /// The disk fails; the old routes stay.
    pub async fn set_routing(&self, routing: Arc<Routing>) -> Result<(), AppendError> {
        self.ask(|reply| writer::Request::SetRouting(routing, reply))
            .await
    }

    /// The counts after the last commit.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.shared.totals()
    }

    /// Why a webhook would be refused now; `None` if it would be held.
    #[must_use]
    pub fn refusal(&self) -> Option<AppendError> {
        self.shared.refusal()
    }

    /// Why a webhook of ordinary size would not be held now, for people; also what only lasts too
    /// long.
    #[must_use]
    pub fn obstacle(&self) -> Option<String> {
        self.shared.obstacle()
    }

    /// What other programs do to the database, if they are in the way.
    #[must_use]
    pub fn others(&self) -> Option<String> {
        self.shared.others()
    }

    /// The disk, as it was looked at last.
    #[must_use]
    pub fn disk(&self) -> DiskStatus {
        self.shared.disk()
    }

    /// Seconds since the oldest unsettled event was received; 0 without a backlog.
    #[must_use]
    pub fn oldest_seconds(&self) -> f64 {
        self.shared.oldest().map_or(0.0, |oldest| {
            Timestamp::now()
                .duration_since(oldest)
                .as_secs_f64()
                .max(0.0)
        })
    }

    /// Changes once, when the journal cannot go on in this process.
    #[must_use]
    pub fn failures(&self) -> watch::Receiver<Option<Failure>> {
        self.shared.failures()
    }

    /// Writes the changes that are under way and closes the database.
    ///
    /// # Panics
    /// If a take panicked.
    pub async fn close(&self) {
        // First, so that the writer is the last one and leaves everything in one file.
        let reader = self.reader.clone();
        let close = move || drop(reader.lock().expect("no take has panicked").take());
        let _ = tokio::task::spawn_blocking(close).await;
        let (done, closed) = oneshot::channel();
        if self.requests.send(writer::Request::Stop(done)).is_ok() {
            let _ = closed.await;
        }
    }

    fn read<T: Default>(
        &self,
        read: impl FnOnce(&mut Reader) -> rusqlite::Result<T>,
    ) -> Result<T, TakeError> {
        let mut reader = self.reader.lock().expect("no take has panicked");
        let Some(reader) = reader.as_mut() else {
            return Ok(T::default());
        };
        let database = self.directory.database();
        read(reader)
            .inspect_err(|error| {
                if writer::is_damage(error) {
                    damage::suspect(&self.directory.database());
                    self.shared.fail(error.to_string(), true);
                }
            })
            .map_err(|error| TakeError::of(error, &database))
    }

    async fn ask(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<(), AppendError>>) -> writer::Request,
    ) -> Result<(), AppendError> {
        let (reply, answer) = oneshot::channel();
        self.requests
            .send(request(reply))
            .map_err(|_| AppendError::Closed)?;
        answer.await.unwrap_or(Err(AppendError::Closed))
    }
}

/// SQLite says only that the database is busy.
fn named(error: OpenError, database: &Path) -> OpenError {
    match &error {
        OpenError::Sqlite(source) | OpenError::Schema(SchemaError::Open { source, .. })
            if store::is_locked(source) =>
        {
            OpenError::Locked(locks::writer(database))
        }
        _ => error,
    }
}
