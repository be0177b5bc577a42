//! The thread of the bridge that fills the archive. Nothing waits for it: it runs with a low
//! priority, reads the journal in short snapshots, pauses after each batch while webhooks come in
//! and as long as the disk is short of space, and survives every error of the archive.

mod batch;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};

use super::file::{self, Unusable};
use crate::journal::directory::{ARCHIVE, DATABASE};
use crate::journal::disk_space::{Space, wanted_bytes};
use crate::journal::files;
use crate::journal::schema;
use batch::{BATCH_EVENTS, Done};

/// Interval between two checks for new events.
const TICK: Duration = Duration::from_secs(1);
/// Interval between two removals of what retention has deleted in the journal.
const FORGET_PAUSE: Duration = Duration::from_mins(1);
/// Pause after an error that cannot be fixed by rebuilding the archive.
const ERROR_PAUSE: Duration = Duration::from_mins(1);
/// SQLite's page cache for the journal, in KiB.
const JOURNAL_CACHE_KIB: i32 = 256;
/// A nice value of 15 gives a thirtieth of the weight of the other threads. The lowest priority gives
/// a seventieth: with it, a batch took minutes on a busy machine, and a stop of the bridge waited for
/// it. With 10, a tenth, the median delivery time at 60 % load doubled.
const NICE: i32 = 15;

/// Handle of the running thread.
#[derive(Debug)]
pub struct Indexer {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Indexer {
    /// Starts to fill the archive of the journal in a directory. When the free space of its disk
    /// falls to a margin above `disk_free_min` bytes, the archive is deleted.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn start(dir: &Path, disk_free_min: u64) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let worker = Worker::of(dir, disk_free_min, stopped);
        let thread = thread::Builder::new()
            .name("archive".into())
            .spawn(move || worker.run())?;
        Ok(Self { stop, thread })
    }

    /// Ends the thread and waits until it has closed its files, which takes a few milliseconds.
    pub fn stop(self) {
        drop(self.stop);
        // A panic has been logged. The archive is in the state after the last complete batch.
        let _ = self.thread.join();
    }
}

struct Worker {
    dir: PathBuf,
    path: PathBuf,
    disk_free_min: u64,
    /// Events in one batch.
    batch_events: usize,
    stopped: Receiver<()>,
    open: Option<OpenDatabases>,
    /// Size of the archive in bytes when it was deleted for lack of space; 0 if it was not.
    bytes_before_deletion: u64,
    /// The last error logged; cleared when a batch succeeds.
    logged: Option<String>,
    forgotten: Option<Instant>,
}

/// Connections to both databases, and the identity of the archive's file.
struct OpenDatabases {
    journal: Connection,
    archive: Connection,
    file: (u64, u64),
}

/// Why a batch was not indexed.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("reading the journal: {0}")]
    Journal(rusqlite::Error),
    #[error(transparent)]
    Archive(#[from] Unusable),
    #[error("search index (archive.db) deleted because the disk is short of space")]
    Space,
}

impl Worker {
    fn of(dir: &Path, disk_free_min: u64, stopped: Receiver<()>) -> Self {
        Self {
            dir: dir.to_owned(),
            path: dir.join(ARCHIVE),
            disk_free_min,
            batch_events: BATCH_EVENTS,
            stopped,
            open: None,
            bytes_before_deletion: 0,
            logged: None,
            forgotten: None,
        }
    }

    fn run(mut self) {
        // If the system refuses the low priority, the thread runs with the normal one.
        let _ = rustix::process::nice(NICE);
        let mut pause = Duration::ZERO;
        while self.stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
            pause = match self.step() {
                Ok(pause) => pause,
                Err(trouble) => {
                    self.open = None;
                    self.tell(&trouble);
                    self.overcome(&trouble)
                }
            };
        }
    }

    /// Indexes a batch of events; returns how long to wait before the next one.
    fn step(&mut self) -> Result<Duration, Trouble> {
        if !self.has_space()? {
            return Ok(TICK);
        }
        let mut open = match self.open.take() {
            Some(open) if file::identity(&self.path).ok() == Some(open.file) => open,
            _ => self.open_both()?,
        };
        let began = Instant::now();
        let stopped = &self.stopped;
        let is_stopped = || stopped.try_recv() != Err(mpsc::TryRecvError::Empty);
        let done = batch::index(
            &mut open.archive,
            &open.journal,
            self.batch_events,
            is_stopped,
        )
        .map_err(|error| self.classify_error(error))?;
        let is_idle = matches!(done, Done::Nothing);
        if is_idle
            && self
                .forgotten
                .is_none_or(|forgotten| forgotten.elapsed() >= FORGET_PAUSE)
        {
            batch::forget(&mut open.archive, &open.journal)
                .map_err(|error| self.classify_error(error))?;
            self.forgotten = Some(Instant::now());
        }
        self.open = Some(open);
        if self.logged.take().is_some() {
            tracing::info!(archive = %self.path.display(), "search index (archive.db): indexing resumed");
        }
        Ok(match done {
            Done::Nothing => TICK,
            // Leave nine tenths of the time to the threads that receive webhooks.
            Done::WhileBusy => began.elapsed() * 9,
            Done::WhileIdle => Duration::ZERO,
        })
    }

    fn open_both(&self) -> Result<OpenDatabases, Trouble> {
        let database = self.dir.join(DATABASE);
        let journal = schema::open_untouched(&database).map_err(Trouble::Journal)?;
        // Each row is read once.
        journal
            .pragma_update(None, "cache_size", -JOURNAL_CACHE_KIB)
            .map_err(Trouble::Journal)?;
        let archive = match file::open_writing(&self.path, &journal) {
            Err(why) if why.may_be_replaced() => {
                if matches!(why, Unusable::Missing(_)) {
                    tracing::info!(archive = %self.path.display(), "creating the search index (archive.db)");
                } else {
                    tracing::warn!("{why}; rebuilding it from the journal, nothing is lost");
                }
                file::create(&self.path, &journal)
            }
            opened => opened,
        }?;
        let file = file::identity(&self.path)?;
        Ok(OpenDatabases {
            journal,
            archive,
            file,
        })
    }

    /// Whether the archive may grow. It is deleted before the journal deletes completed events, and
    /// is rebuilt when there is room for all that it had taken.
    fn has_space(&mut self) -> Result<bool, Trouble> {
        let Ok(space) = Space::of(&self.dir) else {
            return Ok(true);
        };
        let wanted = wanted_bytes(self.disk_free_min, space.total);
        let enough = wanted
            .saturating_mul(2)
            .saturating_add(self.bytes_before_deletion);
        if space.free >= enough {
            self.bytes_before_deletion = 0;
            return Ok(true);
        }
        if space.free < wanted.saturating_add(wanted / 2) && self.path.exists() {
            return Err(Trouble::Space);
        }
        Ok(false)
    }

    fn classify_error(&self, error: batch::Error) -> Trouble {
        match error {
            batch::Error::Journal(error) => Trouble::Journal(error),
            batch::Error::Archive(error)
                if error.sqlite_error_code() == Some(ErrorCode::DiskFull) =>
            {
                Trouble::Space
            }
            batch::Error::Archive(error) => Unusable::of(&self.path, error).into(),
            batch::Error::OtherJournal => Unusable::OtherJournal(self.path.clone()).into(),
        }
    }

    /// Fixes an error as far as possible; returns how long to wait.
    fn overcome(&mut self, trouble: &Trouble) -> Duration {
        match trouble {
            // The next step creates a new one.
            Trouble::Archive(why) if why.may_be_replaced() => match files::remove(&self.path) {
                Ok(()) => TICK,
                Err(_) => ERROR_PAUSE,
            },
            Trouble::Space => {
                self.bytes_before_deletion = file::size(&self.path);
                // If the deletion fails, the next step tries it again.
                let _ = files::remove(&self.path);
                TICK
            }
            Trouble::Journal(_) | Trouble::Archive(_) => ERROR_PAUSE,
        }
    }

    /// Logs an error, unless it was the last one logged and nothing has succeeded since.
    fn tell(&mut self, trouble: &Trouble) {
        let text = trouble.to_string();
        if self.logged.as_ref() == Some(&text) {
            return;
        }
        let advice = match trouble {
            Trouble::Archive(why) if why.may_be_replaced() => {
                "rebuilding it from the journal, nothing is lost"
            }
            Trouble::Archive(Unusable::Foreign(_)) => {
                "it is left unchanged; move it away so that a search index can be created; searches \
                 read the journal until then"
            }
            Trouble::Archive(_) => {
                "check the permissions of the directory, and its disk; searches read the journal \
                 until then"
            }
            Trouble::Space => {
                "free disk space; the search index is rebuilt when there is enough; searches read the \
                 journal until then"
            }
            Trouble::Journal(_) => "check the disk; retrying in a minute",
        };
        tracing::warn!(archive = %self.path.display(), "{text}; {advice}");
        self.logged = Some(text);
    }
}
