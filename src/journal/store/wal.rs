//! Checkpoints: the WAL is copied into the database from time to time, so that SQLite can reset it.

use std::time::Duration;

use super::Store;
use crate::journal::locks::LOCK_PATIENCE;

/// How long a checkpoint waits for readers.
const READERS_PATIENCE: Duration = Duration::from_millis(100);

/// The result of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::journal) struct Wal {
    /// Pages in the WAL; -1 if another connection was running a checkpoint.
    pub(in crate::journal) pages: i64,
    /// How many of them are copied into the database. If all are, the next commit resets the WAL.
    pub(in crate::journal) copied: i64,
}

impl Wal {
    pub(in crate::journal) fn is_copied(&self) -> bool {
        self.pages >= 0 && self.copied == self.pages
    }
}

impl Store {
    /// Copies as much as open readers allow, without waiting.
    pub(in crate::journal) fn checkpoint(&self) -> rusqlite::Result<Wal> {
        self.wal_checkpoint("PRAGMA wal_checkpoint(PASSIVE)")
    }

    /// Copies everything and waits up to 100 ms for readers.
    pub(in crate::journal) fn checkpoint_patiently(&self) -> rusqlite::Result<Wal> {
        self.database.busy_timeout(READERS_PATIENCE)?;
        let wal = self.wal_checkpoint("PRAGMA wal_checkpoint(RESTART)");
        self.database.busy_timeout(LOCK_PATIENCE)?;
        wal
    }

    fn wal_checkpoint(&self, pragma: &str) -> rusqlite::Result<Wal> {
        self.database.prepare_cached(pragma)?.query_row([], |row| {
            Ok(Wal {
                pages: row.get(1)?,
                copied: row.get(2)?,
            })
        })
    }
}
