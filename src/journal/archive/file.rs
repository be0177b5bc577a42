//! Creates, opens and identifies `archive.db`. A file that is not an archive of deskbridge is never
//! changed.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use rusqlite::{Connection, OpenFlags, OptionalExtension, Params};
use uuid::Uuid;

use crate::journal::files::{self, FileError};
use crate::journal::interface::Seq;
use crate::journal::schema::{self, SchemaError};
use crate::journal::totals::{self, Name};

/// "ddba": identifies the file as an archive of deskbridge.
const APPLICATION_ID: i32 = 0x6464_6261;
/// The schema and the documents that this program reads and writes. The documents depend on the
/// list `STATUSES`, too.
const VERSION: i32 = 1;
const TABLES: &str = include_str!("schema.sql");
/// SQLite's page cache, in KiB. Small, because the bridge has better uses for the memory.
const CACHE_KIB: i32 = 512;
/// How long to wait for a lock of another program.
const LOCK_PATIENCE: Duration = Duration::from_millis(50);
/// The WAL is checkpointed when it has this many pages of 4 KiB.
const CHECKPOINT_PAGES: i32 = 1000;
/// Event numbers whose words are in the same FTS5 table.
pub(super) const PARTITION_EVENTS: Seq = 65_536;

/// Why an archive cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error("there is no `{0}`")]
    Missing(PathBuf),
    #[error("`{0}` is not a search index of deskbridge")]
    Foreign(PathBuf),
    #[error("`{0}` was written by another release")]
    OtherVersion(PathBuf),
    #[error("`{0}` belongs to another journal")]
    OtherJournal(PathBuf),
    #[error("`{0}` is damaged")]
    Damaged(PathBuf),
    #[error("reading `{0}`: {1}")]
    Sqlite(PathBuf, rusqlite::Error),
    #[error("{0}: {cause}", cause = .0.cause())]
    File(#[from] FileError),
}

impl Unusable {
    pub(super) fn of(path: &Path, error: rusqlite::Error) -> Self {
        let path = path.to_owned();
        if error == rusqlite::Error::QueryReturnedNoRows {
            return Self::Damaged(path);
        }
        match schema::open_error(&path, error) {
            SchemaError::Damaged { .. } => Self::Damaged(path),
            SchemaError::Open { source, .. } => Self::Sqlite(path, source),
            // Not a database, but a file of another program.
            _ => Self::Foreign(path),
        }
    }

    /// Whether a new archive may replace it.
    pub(super) fn may_be_replaced(&self) -> bool {
        matches!(
            self,
            Self::Missing(_) | Self::OtherVersion(_) | Self::OtherJournal(_) | Self::Damaged(_)
        )
    }
}

/// How far a journal is indexed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Progress {
    /// `journal_id` of the journal.
    pub(super) journal: String,
    /// Every event up to this number is indexed.
    pub(super) indexed: Seq,
    /// The row of `webhooks` that was indexed last.
    pub(super) last_first: Seq,
    /// The `webhook_id` of that row.
    pub(super) last_webhook: Uuid,
}

impl Progress {
    pub(super) fn read(archive: &Connection) -> rusqlite::Result<Self> {
        archive
            .prepare_cached("SELECT journal, indexed, last_first, last_webhook FROM progress")?
            .query_row([], |row| {
                Ok(Self {
                    journal: row.get(0)?,
                    indexed: row.get(1)?,
                    last_first: row.get(2)?,
                    last_webhook: Uuid::from_bytes(row.get(3)?),
                })
            })
    }

    pub(super) fn write(&self, archive: &Connection) -> rusqlite::Result<()> {
        archive
            .prepare_cached("UPDATE progress SET indexed = ?1, last_first = ?2, last_webhook = ?3")?
            .execute((
                self.indexed,
                self.last_first,
                self.last_webhook.into_bytes(),
            ))
            .map(drop)
    }

    /// Whether the archive belongs to this journal in its present state. A journal restored from a
    /// backup has the same id, but assigns the numbers since the backup to other events.
    pub(super) fn is_of(&self, journal: &Connection) -> rusqlite::Result<bool> {
        if journal_id(journal)?.is_none_or(|id| id != self.journal) {
            return Ok(false);
        }
        if self.indexed == 0 {
            return Ok(true);
        }
        let last_seq = totals::read(journal, Name::LastSeq)?;
        if last_seq.is_none_or(|last_seq| last_seq < self.indexed) {
            return Ok(false);
        }
        let before = "SELECT first, first + events, webhook_id FROM webhooks WHERE first <= ?1
                      ORDER BY first DESC LIMIT 1";
        let before: Option<(Seq, Seq, Vec<u8>)> = journal
            .prepare_cached(before)?
            .query_row([self.last_first], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .optional()?;
        Ok(before.is_none_or(|(first, end, webhook)| {
            let is_same = first == self.last_first && webhook == self.last_webhook.as_bytes();
            let is_deleted = end <= self.last_first;
            is_same || is_deleted
        }))
    }
}

/// Gives a journal a random id, unless it has one.
pub(in crate::journal) fn name_journal(journal: &Connection) -> rusqlite::Result<()> {
    let insert = "INSERT OR IGNORE INTO settings (name, value)
                  VALUES ('journal_id', lower(hex(randomblob(16))))";
    journal.execute(insert, []).map(drop)
}

fn journal_id(journal: &Connection) -> rusqlite::Result<Option<String>> {
    schema::setting(journal, "journal_id")
}

/// The event numbers that a query returns.
pub(super) fn numbers(
    database: &Connection,
    query: &str,
    parameters: impl Params,
) -> rusqlite::Result<Vec<Seq>> {
    let mut query = database.prepare_cached(query)?;
    query.query_map(parameters, |row| row.get(0))?.collect()
}

/// Opens the archive of a journal for reading.
pub(super) fn open_reading(path: &Path, journal: &Connection) -> Result<Connection, Unusable> {
    let before = identity(path)?;
    let archive = open(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    check(path, &archive, journal)?;
    // Otherwise the WAL could belong to a new archive that has just replaced this one.
    if identity(path)? != before {
        return Err(Unusable::Missing(path.to_owned()));
    }
    Ok(archive)
}

/// Opens the archive of a journal for writing.
pub(super) fn open_writing(path: &Path, journal: &Connection) -> Result<Connection, Unusable> {
    identity(path)?;
    // If the mode of a file cannot be changed, opening it for writing fails, too.
    let _ = files::restrict_database(path);
    let archive = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    check(path, &archive, journal)?;
    configure(&archive).map_err(|error| Unusable::of(path, error))?;
    Ok(archive)
}

/// Creates an empty archive of a journal and replaces the existing file.
pub(super) fn create(path: &Path, journal: &Connection) -> Result<Connection, Unusable> {
    files::create(path)?;
    let archive = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let make = || {
        let id = journal_id(journal)?.unwrap_or_default();
        configure(&archive)?;
        archive.execute_batch("BEGIN")?;
        archive.execute_batch(TABLES)?;
        archive.execute(
            "INSERT INTO progress VALUES (1, ?1, 0, 0, zeroblob(16))",
            [id],
        )?;
        archive.pragma_update(None, "application_id", APPLICATION_ID)?;
        archive.pragma_update(None, "user_version", VERSION)?;
        archive.execute_batch("COMMIT")
    };
    make().map_err(|error| Unusable::of(path, error))?;
    Ok(archive)
}

/// Size of the archive and its WAL on disk, in bytes.
pub(super) fn size(path: &Path) -> u64 {
    let files = files::of_database(path);
    files.iter().map(|file| files::size(file)).sum()
}

/// Device and inode of the file, which must be a regular file of this user.
pub(super) fn identity(path: &Path) -> Result<(u64, u64), Unusable> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Unusable::Missing(path.to_owned()));
        }
        found => found.map_err(FileError::of("checking", path))?,
    };
    let is_ours = found.is_file() && found.uid() == rustix::process::geteuid().as_raw();
    if !is_ours {
        return Err(Unusable::Foreign(path.to_owned()));
    }
    if found.len() == 0 {
        // Left over from a creation that was interrupted.
        return Err(Unusable::Damaged(path.to_owned()));
    }
    Ok((found.dev(), found.ino()))
}

fn open(path: &Path, access: OpenFlags) -> Result<Connection, Unusable> {
    let open = || {
        let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let archive = Connection::open_with_flags(path, flags)?;
        archive.busy_timeout(LOCK_PATIENCE)?;
        archive.set_prepared_statement_cache_capacity(64);
        archive.pragma_update(None, "cache_size", -CACHE_KIB)?;
        Ok(archive)
    };
    open().map_err(|error| Unusable::of(path, error))
}

fn check(path: &Path, archive: &Connection, journal: &Connection) -> Result<(), Unusable> {
    let pragma = |name: &str| archive.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let found = pragma("application_id").and_then(|id| Ok((id, pragma("user_version")?)));
    let (application, version) = found.map_err(|error| Unusable::of(path, error))?;
    if application != APPLICATION_ID {
        return Err(Unusable::Foreign(path.to_owned()));
    }
    if version != VERSION {
        return Err(Unusable::OtherVersion(path.to_owned()));
    }
    let progress = Progress::read(archive).map_err(|error| Unusable::of(path, error))?;
    match progress.is_of(journal) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Unusable::OtherJournal(path.to_owned())),
        Err(error) => Err(Unusable::Sqlite(path.to_owned(), error)),
    }
}

fn configure(archive: &Connection) -> rusqlite::Result<()> {
    let _: String =
        archive.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    // A power loss may lose the last batches; they are indexed again.
    archive.pragma_update(None, "synchronous", "NORMAL")?;
    archive.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)
}
