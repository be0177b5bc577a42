//! The writer waits for locks of other programs on the database, and reports the program.

use std::sync::Arc;
use std::time::Instant;

use super::Store;
use crate::journal::locks::{self, ForeignLocks, LOCK_PATIENCE, Lock, START_PATIENCE, is_locked};

impl Store {
    pub(in crate::journal) fn foreign_locks(&self) -> Arc<ForeignLocks> {
        self.foreign_locks.clone()
    }

    /// Waits for the write lock at a start: a backup may hold it.
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

    /// Begins a write transaction; waits for the lock for [`LOCK_PATIENCE`] at most.
    pub(super) fn begin(&self) -> rusqlite::Result<()> {
        let began = Instant::now();
        let result = self.execute("BEGIN IMMEDIATE");
        match &result {
            Ok(()) => {
                if let Some(lock) = self.foreign_locks.writer.swap(None) {
                    let waited = lock.since.elapsed().as_millis();
                    let waited_ms = u64::try_from(waited).unwrap_or(u64::MAX);
                    tracing::info!(waited_ms, "write lock on journal.db released");
                }
            }
            Err(error) if is_locked(error) => self.report_write_lock(began),
            Err(_) => {}
        }
        result
    }

    /// Records whether a reader prevents a long WAL from being reset; logs each change.
    pub(in crate::journal) fn report_wal_pinned(&self, is_pinned: bool, wal_bytes: u64) {
        let was_pinned = self.foreign_locks.reader.load().is_some();
        if is_pinned && !was_pinned {
            let sentence = locks::reader(&self.path);
            tracing::warn!(wal_bytes, "{sentence}; the WAL grows");
            let since = Instant::now();
            self.foreign_locks
                .reader
                .store(Some(Arc::new(Lock { since, sentence })));
        } else if !is_pinned && was_pinned {
            self.foreign_locks.reader.store(None);
            tracing::info!("the WAL can be reset again");
        }
    }

    fn report_write_lock(&self, since: Instant) {
        if self.foreign_locks.writer.load().is_some() {
            return;
        }
        let sentence = locks::writer(&self.path);
        tracing::warn!("{sentence}; the journal waits for the lock");
        self.foreign_locks
            .writer
            .store(Some(Arc::new(Lock { since, sentence })));
    }
}
