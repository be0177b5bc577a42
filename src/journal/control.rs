//! Control requests: what a command asks the writer of a running bridge to do. The counters are in
//! the writer's memory, so no other process may change what they count. A request is one short
//! transaction, which delays the writer no longer than a commit of its own does.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::archive;
use super::directory::DATABASE;
use super::interface::Seq;
use super::schema;
use super::{CommandOpenError, JournalError, disk_size};

/// The values of the column `kind`.
pub(super) const REPLAYED: &str = "replayed";
pub(super) const RELEASE: &str = "release";

/// A request to the journal's writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlRequest {
    /// Add this number to the counter of replayed events.
    Replayed(u64),
    /// End the exemption of this event from retention.
    Release(Seq),
}

/// A connection that only inserts control requests.
#[derive(Debug)]
pub struct ControlOutbox {
    database: Connection,
    /// The id of the last request that was inserted.
    last: Option<i64>,
}

impl ControlOutbox {
    /// Opens the journal in a directory, whether a bridge is running there or not.
    ///
    /// # Errors
    /// See [`CommandOpenError`]. A journal of an earlier schema is refused: it may have no table
    /// for requests.
    pub fn open(dir: &Path) -> Result<Self, CommandOpenError> {
        archive::check(dir)?;
        let path = dir.join(DATABASE);
        schema::open_reading(&path)?;
        let database = schema::open_second_writer(&path)?;
        Ok(Self {
            database,
            last: None,
        })
    }

    /// Inserts requests, all or none; they are on disk when this returns.
    ///
    /// # Errors
    /// The transaction failed, or another program holds a lock on the database.
    pub fn leave(
        &mut self,
        requests: impl IntoIterator<Item = ControlRequest>,
    ) -> Result<(), JournalError> {
        self.write(requests).map_err(|error| {
            let path = self.database.path().unwrap_or_default();
            JournalError::of(error, Path::new(path))
        })
    }

    /// Whether the writer has carried out all requests that were inserted here.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn is_applied(&self) -> Result<bool, JournalError> {
        let statement = "SELECT NOT EXISTS (SELECT 1 FROM wishes WHERE id <= ?1)";
        let is_applied = self
            .database
            .query_row(statement, [self.last.unwrap_or(0)], |row| row.get(0));
        Ok(is_applied?)
    }

    fn write(
        &mut self,
        requests: impl IntoIterator<Item = ControlRequest>,
    ) -> rusqlite::Result<()> {
        let transaction = self
            .database
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        for wish in requests {
            let (kind, value) = match wish {
                ControlRequest::Replayed(events) => (REPLAYED, disk_size::signed(events)),
                ControlRequest::Release(seq) => (RELEASE, seq),
            };
            let insert = "INSERT INTO wishes (kind, value) VALUES (?1, ?2)";
            transaction.prepare_cached(insert)?.execute((kind, value))?;
        }
        self.last = Some(transaction.last_insert_rowid());
        transaction.commit()
    }
}
