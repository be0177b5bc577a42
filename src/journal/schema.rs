//! Opens the database: who made it, which version, the pragmas, the migrations. Looks before it
//! touches anything: what is not ours is left as it is.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::files;
use super::store::START_PATIENCE;

/// "ddbr": marks the file as ours.
const APPLICATION_ID: i32 = 0x6464_6272;
/// The schema this program writes.
pub(super) const VERSION: i32 = 3;
/// `MIGRATIONS[n]` leads from version n to n + 1.
const MIGRATIONS: [&str; VERSION as usize] = [
    include_str!("schema.sql"),
    include_str!("schema-2.sql"),
    include_str!("schema-3.sql"),
];
/// A session has some 2 KB: a page of 4 KiB would hold one and be half empty.
pub(super) const PAGE_BYTES: u32 = 8192;
/// The beginning of the second page: eight roots, which have no parent.
const ROOTS: [u8; 40] = {
    let mut kinds = [0; 40];
    let mut entry = 0;
    while entry < kinds.len() {
        kinds[entry] = 1;
        entry += 5;
    }
    kinds
};
/// The log is cut to this size when it begins anew.
const WAL_BYTES_MAX: u32 = 16 << 20;

/// A connection never is in two threads at a time: it needs no lock of its own.
pub(super) const WRITING: OpenFlags =
    OpenFlags::SQLITE_OPEN_READ_WRITE.union(OpenFlags::SQLITE_OPEN_NO_MUTEX);
const READING: OpenFlags = OpenFlags::SQLITE_OPEN_READ_ONLY.union(OpenFlags::SQLITE_OPEN_NO_MUTEX);

/// Why a database cannot be used. It was not changed.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// Not a journal.
    #[error("`{0}` is not a journal of deskbridge")]
    Foreign(PathBuf),
    /// Written by a later release.
    #[error("`{path}` has schema version {found}, this release reads up to {VERSION}")]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i32,
    },
    /// Written by an earlier release, and not to be brought up to date here.
    #[error("`{path}` has schema version {found}, this release writes {VERSION}")]
    Older {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i32,
    },
    /// SQLite reports damage.
    #[error("`{path}` is damaged")]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// SQLite cannot open it.
    #[error("opening `{path}`")]
    Open {
        /// The database.
        path: PathBuf,
        /// Why it failed.
        source: rusqlite::Error,
    },
    /// The operating system refused.
    #[error("{doing} `{path}`")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// Makes a new database, all of it or nothing: under the name `path` there never is a half one.
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
        .map_err(|source| io_error("creating", path, source))
}

/// Makes a new database under the name of one that is not ready; one that was left behind there
/// goes.
///
/// # Errors
/// See [`SchemaError`].
pub fn create_under_way(path: &Path) -> Result<Connection, SchemaError> {
    for suffix in files::SUFFIXES {
        let _ = fs::remove_file(files::with_suffix(path, suffix));
    }
    // SQLite would make it with the umask's mode; its log and index take the database's.
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|source| io_error("creating", path, source))?;
    let mut database =
        Connection::open_with_flags(path, WRITING).map_err(|error| open_error(path, error))?;
    // Both before the first table, or they have no effect.
    database
        .pragma_update(None, "page_size", PAGE_BYTES)
        .and_then(|()| database.pragma_update(None, "auto_vacuum", "INCREMENTAL"))
        .and_then(|()| configure(&database))
        .and_then(|()| migrate(&mut database, 0))
        .map_err(|error| open_error(path, error))?;
    Ok(database)
}

/// Opens the database for writing and brings it to this version.
///
/// # Errors
/// See [`SchemaError`]; nothing was changed then.
pub fn open(path: &Path) -> Result<Connection, SchemaError> {
    look(path)?;
    for suffix in files::SUFFIXES {
        restrict(&files::with_suffix(path, suffix))?;
    }
    let mut database =
        Connection::open_with_flags(path, WRITING).map_err(|error| open_error(path, error))?;
    let version = check(&database, path)?;
    configure(&database)
        .and_then(|()| migrate(&mut database, version))
        .map_err(|error| open_error(path, error))?;
    Ok(database)
}

/// Opens the database for reading, beside the process that writes it. What that is does not
/// matter here: it has been checked.
///
/// # Errors
/// See [`SchemaError`].
pub fn open_reading(path: &Path) -> Result<Connection, SchemaError> {
    let database = look(path)?;
    database
        .busy_timeout(START_PATIENCE)
        .map_err(|error| open_error(path, error))?;
    Ok(database)
}

/// Opens the database without changing anything, whatever it is.
///
/// # Errors
/// See [`SchemaError`].
pub fn look(path: &Path) -> Result<Connection, SchemaError> {
    let database = open_untouched(path).map_err(|error| open_error(path, error))?;
    check(&database, path)?;
    Ok(database)
}

/// A connection that writes nothing, not even, being read-only, the log into the database when it
/// closes.
///
/// # Errors
/// There is no such file, or it cannot be opened.
pub fn open_untouched(path: &Path) -> rusqlite::Result<Connection> {
    let database = Connection::open_with_flags(path, READING)?;
    plan_once(&database)?;
    Ok(database)
}

pub(super) fn check(database: &Connection, path: &Path) -> Result<i32, SchemaError> {
    let pragma = |name: &str| {
        database
            .pragma_query_value(None, name, |row| row.get::<_, i32>(0))
            .map_err(|error| open_error(path, error))
    };
    let (application, version) = (pragma("application_id")?, pragma("user_version")?);
    // Reads more than the header does.
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

fn configure(database: &Connection) -> rusqlite::Result<()> {
    let mode: String =
        database.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    debug_assert_eq!(mode, "wal");
    database.pragma_update(None, "synchronous", "FULL")?;
    // The writer checkpoints by itself, so that it sees what a failed fsync there says.
    database.pragma_update(None, "wal_autocheckpoint", 0)?;
    database.pragma_update(None, "journal_size_limit", WAL_BYTES_MAX)?;
    database.pragma_update(None, "temp_store", "MEMORY")?;
    database.busy_timeout(START_PATIENCE)?;
    plan_once(database)?;
    database.set_prepared_statement_cache_capacity(64);
    Ok(())
}

/// Or a statement is planned anew for every value it is asked with, since some value might be the
/// one that a partial index is for: half the cost of an event.
fn plan_once(database: &Connection) -> rusqlite::Result<()> {
    let plan_once = DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG;
    database.set_db_config(plan_once, true).map(drop)
}

fn migrate(database: &mut Connection, version: i32) -> rusqlite::Result<()> {
    let from = usize::try_from(version).unwrap_or(0);
    if from == MIGRATIONS.len() {
        return Ok(());
    }
    let transaction = database.transaction()?;
    for migration in &MIGRATIONS[from..] {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}

/// A file that came back from a backup may be open to others.
fn restrict(path: &Path) -> Result<(), SchemaError> {
    let result = match fs::metadata(path) {
        Ok(found) if found.permissions().mode() & 0o077 != 0 => {
            fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    result.map_err(|source| io_error("restricting", path, source))
}

pub(super) fn open_error(path: &Path, source: rusqlite::Error) -> SchemaError {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt) => SchemaError::Damaged { path, source },
        Some(ErrorCode::NotADatabase) if header_is_blank(&path) || is_beheaded(&path) => {
            SchemaError::Damaged { path, source }
        }
        Some(ErrorCode::NotADatabase) => SchemaError::Foreign(path),
        _ => SchemaError::Open { path, source },
    }
}

fn io_error(doing: &'static str, path: &Path, source: io::Error) -> SchemaError {
    SchemaError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}

/// Whether a file that is no database is a journal but for its first page: the second one says what
/// kind of page each of the next ones is, and ours begins with roots.
pub fn is_beheaded(path: &Path) -> bool {
    let mut kinds = [0; ROOTS.len()];
    let read = |file: File| file.read_exact_at(&mut kinds, PAGE_BYTES.into());
    File::open(path).and_then(read).is_ok() && kinds == ROOTS
}

/// A file that begins with zeros was a database once whose first page was lost; any other text is
/// somebody else's file.
fn header_is_blank(path: &Path) -> bool {
    let mut header = [1; 16];
    File::open(path)
        .and_then(|mut file| file.read_exact(&mut header))
        .is_ok()
        && header == [0; 16]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_database_is_ours_in_wal_mode_and_synced() {
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
