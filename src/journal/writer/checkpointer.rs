//! Copies the WAL into the database on a separate thread and connection, so that no commit waits
//! for it. Only a little is written in the meantime: the writer copies the rest between two
//! commits, and SQLite resets the WAL.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::{self, JoinHandle};

use rusqlite::Connection;

use crate::journal::schema;

/// The checkpoint thread; it is started when it is first needed.
#[derive(Debug, Default)]
pub(super) struct Checkpointer {
    database: PathBuf,
    running: Option<Running>,
    is_copying: bool,
}

#[derive(Debug)]
struct Running {
    jobs: SyncSender<()>,
    outcomes: Receiver<rusqlite::Result<()>>,
    thread: JoinHandle<()>,
}

impl Checkpointer {
    /// Creates the handle for a database, without a thread.
    pub(super) fn of(database: &Path) -> Self {
        Self {
            database: database.to_owned(),
            ..Self::default()
        }
    }

    /// Starts a copy if none is running. Returns `false` if there is no thread: then the writer has
    /// to copy.
    pub(super) fn begin(&mut self) -> bool {
        if self.is_copying {
            return true;
        }
        if self.running.is_none() {
            self.running = start(&self.database);
        }
        let running = self.running.as_ref();
        self.is_copying = running.is_some_and(|running| running.jobs.send(()).is_ok());
        self.is_copying
    }

    /// The result of the copy that has ended; `None` while it runs, or if none was started.
    pub(super) fn ended(&mut self) -> Option<rusqlite::Result<()>> {
        let running = self.running.as_ref().filter(|_| self.is_copying)?;
        let outcome = running.outcomes.try_recv().ok()?;
        self.is_copying = false;
        Some(outcome)
    }

    /// Waits for the end of a running copy and returns its result.
    pub(super) fn wait(&mut self) -> rusqlite::Result<()> {
        let Some(running) = self.running.as_ref().filter(|_| self.is_copying) else {
            return Ok(());
        };
        self.is_copying = false;
        // If the thread has ended, no copy is running.
        running.outcomes.recv().unwrap_or(Ok(()))
    }

    /// Ends the thread and closes its connection.
    pub(super) fn end(&mut self) {
        if let Some(Running { jobs, thread, .. }) = self.running.take() {
            drop(jobs);
            // A panic has been logged, and there is nothing to undo.
            let _ = thread.join();
        }
    }
}

fn start(database: &Path) -> Option<Running> {
    let database = schema::open_second_writer(database).ok()?;
    let (jobs, job) = mpsc::sync_channel(1);
    let (outcome, outcomes) = mpsc::channel();
    let work = move || {
        for () in job {
            if outcome.send(copy(&database)).is_err() {
                break;
            }
        }
    };
    let thread = thread::Builder::new().name("checkpoint".into()).spawn(work);
    let thread = thread.ok()?;
    Some(Running {
        jobs,
        outcomes,
        thread,
    })
}

/// Copies as much as open readers allow. A checkpoint of another program at the same time is not an
/// error.
fn copy(database: &Connection) -> rusqlite::Result<()> {
    database
        .prepare_cached("PRAGMA wal_checkpoint(PASSIVE)")?
        .query_row([], |_| Ok(()))
}
