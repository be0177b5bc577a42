//! What a command beside the bridge leaves for its writer: the counters are in the writer's memory,
//! so nobody else may change what they count. One short transaction, which the writer's commits
//! wait for no longer than for one of their own.

use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, TransactionBehavior};

use super::archive;
use super::directory::DATABASE;
use super::rows::Seq;
use super::schema::{self, SchemaError};
use super::store::START_PATIENCE;
use super::{TakeError, VisitError};

/// The names in the table.
pub(super) const REPLAYED: &str = "replayed";
pub(super) const RELEASE: &str = "release";

/// Something for the journal's writer to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// So many events were published again: count them.
    Replayed(u64),
    /// Give this event up to retention.
    Release(Seq),
}

/// A connection that leaves wishes and writes nothing else.
#[derive(Debug)]
pub struct WishList {
    database: Connection,
    /// The last wish that was left.
    last: Option<i64>,
}

impl WishList {
    /// Opens the journal in a directory, beside a running bridge or without one.
    ///
    /// # Errors
    /// See [`VisitError`]; a journal of an earlier release has no place for wishes yet.
    pub fn open(dir: &Path) -> Result<Self, VisitError> {
        archive::check(dir)?;
        let path = dir.join(DATABASE);
        let found = schema::check(&schema::look(&path)?, &path)?;
        if found < schema::VERSION {
            return Err(SchemaError::Older { path, found }.into());
        }
        let database = Connection::open_with_flags(&path, schema::WRITING)
            .map_err(|error| schema::open_error(&path, error))?;
        database.busy_timeout(START_PATIENCE)?;
        // Copying the log is the writer's business, who sees what a failed fsync there says.
        database.pragma_update(None, "wal_autocheckpoint", 0)?;
        database.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        database.pragma_update(None, "synchronous", "FULL")?;
        Ok(Self {
            database,
            last: None,
        })
    }

    /// Leaves wishes, all or none; they are on the disk when this returns.
    ///
    /// # Errors
    /// The disk takes none.
    pub fn leave(&mut self, wishes: impl IntoIterator<Item = Wish>) -> Result<(), TakeError> {
        self.write(wishes).map_err(|error| {
            let path = self.database.path().unwrap_or_default();
            TakeError::of(error, Path::new(path))
        })
    }

    /// Whether the writer has granted what was left here.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn is_granted(&self) -> Result<bool, TakeError> {
        let statement = "SELECT NOT EXISTS (SELECT 1 FROM wishes WHERE id <= ?1)";
        let is_granted = self
            .database
            .query_row(statement, [self.last.unwrap_or(0)], |row| row.get(0));
        Ok(is_granted?)
    }

    fn write(&mut self, wishes: impl IntoIterator<Item = Wish>) -> rusqlite::Result<()> {
        let transaction = self
            .database
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        for wish in wishes {
            let (kind, value) = match wish {
                Wish::Replayed(events) => (REPLAYED, i64::try_from(events).unwrap_or(i64::MAX)),
                Wish::Release(seq) => (RELEASE, seq),
            };
            let insert = "INSERT INTO wishes (kind, value) VALUES (?1, ?2)";
            transaction.prepare_cached(insert)?.execute((kind, value))?;
        }
        self.last = Some(transaction.last_insert_rowid());
        transaction.commit()
    }
}
