//! Locks of other programs on the database. The bridge holds its directory alone, so that a lock
//! can only be an operator's or a backup's: it is waited for, and named.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use rusqlite::ErrorCode;

use super::Store;
use crate::journal::locks;

/// How long a statement waits for a lock in one go; then it is said who holds it.
pub(in crate::journal) const LOCK_PATIENCE: Duration = Duration::from_millis(500);
/// How long a start and a command wait for one.
pub(in crate::journal) const START_PATIENCE: Duration = Duration::from_secs(5);

/// What other programs do to the database, one sentence each.
#[derive(Debug, Default)]
pub(in crate::journal) struct Others {
    writer: ArcSwapOption<Lock>,
    reader: ArcSwapOption<Lock>,
}

#[derive(Debug)]
struct Lock {
    since: Instant,
    sentence: String,
}

impl Others {
    /// What keeps the journal from writing, or keeps its log from beginning anew.
    pub(in crate::journal) fn sentence(&self) -> Option<String> {
        let lock = self.writer.load_full().or_else(|| self.reader.load_full());
        lock.map(|lock| lock.sentence.clone())
    }

    /// The same of a write lock, and since when it is waited for.
    pub(in crate::journal) fn writer(&self) -> Option<(Duration, String)> {
        let lock = self.writer.load_full()?;
        Some((lock.since.elapsed(), lock.sentence.clone()))
    }
}

/// Whether another program holds a lock that is in the way.
pub(in crate::journal) fn is_locked(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::FileLockingProtocolFailed
        )
    )
}

impl Store {
    pub(in crate::journal) fn others(&self) -> Arc<Others> {
        self.others.clone()
    }

    /// At a start: a backup may have it.
    pub(super) fn wait_for_the_lock(&self) -> rusqlite::Result<()> {
        self.database.busy_timeout(LOCK_PATIENCE)?;
        let began = Instant::now();
        loop {
            match self.begin() {
                Err(error) if is_locked(&error) && began.elapsed() < START_PATIENCE => {}
                result => return result.and_then(|()| self.execute("ROLLBACK")),
            }
        }
    }

    /// Begins a transaction that writes; waits for the lock once.
    pub(super) fn begin(&self) -> rusqlite::Result<()> {
        let began = Instant::now();
        let result = self.execute("BEGIN IMMEDIATE");
        match &result {
            Ok(()) => self.is_free(),
            Err(error) if is_locked(error) => self.is_locked(began),
            Err(_) => {}
        }
        result
    }

    /// Whether a reader keeps the log from beginning anew although it is long.
    pub(in crate::journal) fn log_is_held(&self, is_held: bool, log_bytes: u64) {
        let was_held = self.others.reader.load().is_some();
        if is_held && !was_held {
            let sentence = locks::reader(&self.path);
            tracing::warn!(log_bytes, "{sentence}; the log grows");
            self.others
                .reader
                .store(Some(Lock::since(Instant::now(), sentence)));
        } else if !is_held && was_held {
            self.others.reader.store(None);
            tracing::info!("nothing keeps the journal's log from beginning anew any more");
        }
    }

    fn is_locked(&self, since: Instant) {
        if self.others.writer.load().is_some() {
            return;
        }
        let sentence = locks::writer(&self.path);
        tracing::warn!("{sentence}; the journal waits for it");
        self.others.writer.store(Some(Lock::since(since, sentence)));
    }

    fn is_free(&self) {
        if let Some(lock) = self.others.writer.swap(None) {
            let waited_ms = u64::try_from(lock.since.elapsed().as_millis()).unwrap_or(u64::MAX);
            tracing::info!(waited_ms, "the write lock on journal.db is gone");
        }
    }
}

impl Lock {
    fn since(since: Instant, sentence: String) -> Arc<Self> {
        Arc::new(Self { since, sentence })
    }
}
