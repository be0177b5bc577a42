//! The write-ahead log: copied into the database now and then, so that it can begin anew.

use std::time::Duration;

use super::{LOCK_PATIENCE, Store};

/// How long a checkpoint waits for readers.
const READERS_PATIENCE: Duration = Duration::from_millis(100);

/// What a checkpoint found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::journal) struct Wal {
    /// Pages in the log; -1 if somebody else was at it.
    pub(in crate::journal) pages: i64,
    /// How many of them are in the database too. All: the log begins anew with the next commit.
    pub(in crate::journal) copied: i64,
}

impl Wal {
    pub(in crate::journal) fn is_copied(&self) -> bool {
        self.pages >= 0 && self.copied == self.pages
    }
}

impl Store {
    /// Copies what no reader needs any more, without waiting.
    pub(in crate::journal) fn checkpoint(&self) -> rusqlite::Result<Wal> {
        self.wal_checkpoint("PRAGMA wal_checkpoint(PASSIVE)")
    }

    /// Copies everything, waiting for readers a little.
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
