//! Opens and creates the database: application id, schema version, pragmas. Everything is checked
//! before anything is changed, so a file that is not a journal of deskbridge stays as it is.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};

use super::files::{self, FileError};
use super::locks::START_PATIENCE;

/// "ddbr" in ASCII: identifies the file as a journal of deskbridge.
const APPLICATION_ID: i32 = 0x6464_6272;
/// The schema version that this release writes.
pub(super) const VERSION: i32 = 4;
const TABLES: &str = include_str!("schema.sql");
/// The unused end of a row's last page is written, too, and twice: to the WAL and to the database.
/// With pages of 8 KiB, webhooks of ten sessions wrote 3.7 bytes for each byte received instead of
/// 2.8, with the same processor time.
pub(super) const PAGE_BYTES: u32 = 4096;
/// The entry of a root page, which has no parent, in the second page (pointer map).
const ROOT: [u8; 5] = [1, 0, 0, 0, 0];
/// The WAL is truncated to this size when it is reset.
const WAL_BYTES_MAX: u32 = 16 << 20;

/// No connection is used by two threads at a time, so SQLite's mutexes are not needed.
const WRITING: OpenFlags = OpenFlags::SQLITE_OPEN_READ_WRITE.union(OpenFlags::SQLITE_OPEN_NO_MUTEX);
const READING: OpenFlags = OpenFlags::SQLITE_OPEN_READ_ONLY.union(OpenFlags::SQLITE_OPEN_NO_MUTEX);

/// Why a database cannot be used. It was not changed.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The file is not a journal of deskbridge.
    #[error("`{0}` is not a journal of deskbridge")]
    Foreign(PathBuf),
    /// The schema is that of a later release.
    #[error("`{path}` has schema version {found}, this release reads up to {VERSION}")]
    Newer {
        /// The database.
        path: PathBuf,
        /// The schema version of the database.
        found: i32,
    },
    /// The schema is that of an earlier release, and this call does not migrate.
    #[error("`{path}` has schema version {found}, this release writes {VERSION}")]
    Older {
        /// The database.
        path: PathBuf,
        /// The schema version of the database.
        found: i32,
    },
    /// SQLite reports damage.
    #[error("`{path}` is damaged")]
    Damaged {
        /// The database.
        path: PathBuf,
        /// The error of SQLite.
        source: rusqlite::Error,
    },
    /// SQLite failed for another reason.
    #[error("opening `{path}`")]
    Open {
        /// The database.
        path: PathBuf,
        /// Why it failed.
        source: rusqlite::Error,
    },
    /// The operating system refused.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Creates a new database atomically: the file `path` exists only when it is complete.
///
/// # Errors
/// See [`SchemaError`].
pub fn create(path: &Path) -> Result<(), SchemaError> {
    let new = files::with_suffix(path, files::NEW);
    let database = create_under_way(&new)?;
    database
        .close()
        .map_err(|(_, error)| open_error(&new, error))?;
    fs::rename(&new, path)
        .and_then(|()| files::sync_directory_of(path))
        .map_err(FileError::of("creating", path))?;
    Ok(())
}

/// Creates a new database under construction. A file that an interrupted start left under this name
/// is deleted.
///
/// # Errors
/// See [`SchemaError`].
pub fn create_under_way(path: &Path) -> Result<Connection, SchemaError> {
    files::create(path)?;
    let mut database =
        Connection::open_with_flags(path, WRITING).map_err(|error| open_error(path, error))?;
    // Both have an effect only before the first table is created.
    database
        .pragma_update(None, "page_size", PAGE_BYTES)
        .and_then(|()| database.pragma_update(None, "auto_vacuum", "INCREMENTAL"))
        .and_then(|()| configure(&database))
        .and_then(|()| make_tables(&mut database))
        .map_err(|error| open_error(path, error))?;
    Ok(database)
}

/// Opens the database for writing, whatever its schema version is.
///
/// # Errors
/// See [`SchemaError`]; nothing was changed then.
pub fn open(path: &Path) -> Result<Connection, SchemaError> {
    open_checked(path)?;
    files::restrict_database(path)?;
    let database =
        Connection::open_with_flags(path, WRITING).map_err(|error| open_error(path, error))?;
    check(&database, path)?;
    configure(&database).map_err(|error| open_error(path, error))?;
    Ok(database)
}

/// Opens the database for reading, while another connection may write it.
///
/// # Errors
/// See [`SchemaError`]. A database of an earlier schema is refused: it must be migrated first.
pub fn open_reading(path: &Path) -> Result<Connection, SchemaError> {
    let (database, found) = open_checked(path)?;
    if found < VERSION {
        return Err(SchemaError::Older {
            path: path.to_owned(),
            found,
        });
    }
    database
        .busy_timeout(START_PATIENCE)
        .map_err(|error| open_error(path, error))?;
    Ok(database)
}

/// Opens the database for one more writer, next to that of the bridge, which alone checkpoints: it
/// must see an error of the fsync, and its close leaves all data in one file.
///
/// # Errors
/// It cannot be opened.
pub fn open_second_writer(path: &Path) -> rusqlite::Result<Connection> {
    let database = Connection::open_with_flags(path, WRITING)?;
    database.busy_timeout(START_PATIENCE)?;
    database.pragma_update(None, "wal_autocheckpoint", 0)?;
    database.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    database.pragma_update(None, "synchronous", "FULL")?;
    Ok(database)
}

/// Opens the database read-only, after checking that it is a journal; returns its schema version,
/// too. Changes nothing.
///
/// # Errors
/// See [`SchemaError`].
pub fn open_checked(path: &Path) -> Result<(Connection, i32), SchemaError> {
    let database = open_untouched(path).map_err(|error| open_error(path, error))?;
    let found = check(&database, path)?;
    Ok((database, found))
}

/// A read-only connection to any file. It changes nothing: being read-only, it does not even
/// checkpoint the WAL when it closes.
///
/// # Errors
/// There is no such file, or it cannot be opened.
pub fn open_untouched(path: &Path) -> rusqlite::Result<Connection> {
    let database = Connection::open_with_flags(path, READING)?;
    plan_once(&database)?;
    Ok(database)
}

fn check(database: &Connection, path: &Path) -> Result<i32, SchemaError> {
    let pragma = |name: &str| {
        database
            .pragma_query_value(None, name, |row| row.get::<_, i32>(0))
            .map_err(|error| open_error(path, error))
    };
    let (application, version) = (pragma("application_id")?, pragma("user_version")?);
    // Reads more than the header, so that damage of the schema is found here.
    let _: i64 = database
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(|error| open_error(path, error))?;
    if application != APPLICATION_ID {
        return Err(SchemaError::Foreign(path.to_owned()));
    }
    if version > VERSION {
        return Err(SchemaError::Newer {
            path: path.to_owned(),
            found: version,
        });
    }
    Ok(version)
}

/// A value of the table `settings`.
pub(super) fn setting(database: &Connection, name: &str) -> rusqlite::Result<Option<String>> {
    database
        .prepare_cached("SELECT value FROM settings WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()
}

fn configure(database: &Connection) -> rusqlite::Result<()> {
    let mode: String =
        database.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    debug_assert_eq!(mode, "wal");
    database.pragma_update(None, "synchronous", "FULL")?;
    // The writer checkpoints explicitly, because it must see an error of the fsync.
    database.pragma_update(None, "wal_autocheckpoint", 0)?;
    database.pragma_update(None, "journal_size_limit", WAL_BYTES_MAX)?;
    database.pragma_update(None, "temp_store", "MEMORY")?;
    database.busy_timeout(START_PATIENCE)?;
    plan_once(database)?;
    database.set_prepared_statement_cache_capacity(64);
    Ok(())
}

/// Without this, SQLite plans a statement again for every bound value, because the value could make
/// a partial index usable. This took half the time of an event.
fn plan_once(database: &Connection) -> rusqlite::Result<()> {
    let plan_once = DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG;
    database.set_db_config(plan_once, true).map(drop)
}

fn make_tables(database: &mut Connection) -> rusqlite::Result<()> {
    let transaction = database.transaction()?;
    transaction.execute_batch(TABLES)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}

pub(super) fn open_error(path: &Path, source: rusqlite::Error) -> SchemaError {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt) => SchemaError::Damaged { path, source },
        Some(ErrorCode::NotADatabase) if header_is_blank(&path) || has_lost_header(&path) => {
            SchemaError::Damaged { path, source }
        }
        Some(ErrorCode::NotADatabase) => SchemaError::Foreign(path),
        _ => SchemaError::Open { path, source },
    }
}

/// Whether a file that SQLite does not recognise is a journal without its first page. The second
/// page (pointer map) lists the kind of each following page; in a journal, the first ones are root
/// pages.
pub fn has_lost_header(path: &Path) -> bool {
    let mut kinds = [[0; ROOT.len()]; 8];
    let read = |file: File| file.read_exact_at(kinds.as_flattened_mut(), PAGE_BYTES.into());
    File::open(path).and_then(read).is_ok() && kinds == [ROOT; 8]
}

/// Whether the header consists of zeros: then it was a database that lost its first page. Any other
/// header is a file of another program.
fn header_is_blank(path: &Path) -> bool {
    let mut header = [1; 16];
    let read = |file: File| file.read_exact_at(&mut header, 0);
    File::open(path).and_then(read).is_ok() && header == [0; 16]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_database_is_marked_in_wal_mode_and_synced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.db");
        create(&path).unwrap();
        let database = open(&path).unwrap();
        let text = |name| database.pragma_query_value(None, name, |row| row.get::<_, String>(0));
        let number = |name| database.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
        assert_eq!(text("journal_mode").unwrap(), "wal");
        assert_eq!(number("synchronous").unwrap(), 2);
        assert_eq!(number("auto_vacuum").unwrap(), 2);
        assert_eq!(number("user_version").unwrap(), VERSION);
        assert_eq!(number("wal_autocheckpoint").unwrap(), 0);
    }
}
