//! Opens the database: who made it, which version, the pragmas, the migrations.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

/// "ddbr": marks the file as ours.
const APPLICATION_ID: i32 = 0x6464_6272;
/// The schema this program writes.
const VERSION: i32 = 1;
/// `MIGRATIONS[n]` leads from version n to n + 1.
const MIGRATIONS: [&str; VERSION as usize] = [include_str!("schema.sql")];

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
}

/// Opens the database for writing; makes it, or brings it to this version.
///
/// # Errors
/// See [`SchemaError`]; nothing was changed then.
pub fn open(path: &Path) -> Result<Connection, SchemaError> {
    // SQLite would make it with the umask's mode; its WAL and index take the database's.
    let created = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|error| open_error(path, io_to_sqlite(&error)))?;
    drop(created);
    let mut database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)
        .map_err(|error| open_error(path, error))?;
    check(&database, path)?;
    configure(&database).map_err(|error| open_error(path, error))?;
    migrate(&mut database).map_err(|error| open_error(path, error))?;
    Ok(database)
}

/// Opens the database for reading, beside the process that writes it.
///
/// # Errors
/// See [`SchemaError`].
pub fn open_reading(path: &Path) -> Result<Connection, SchemaError> {
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .map_err(|error| open_error(path, error))?;
    database
        .busy_timeout(Duration::from_secs(5))
        .map_err(|error| open_error(path, error))?;
    check(&database, path)?;
    Ok(database)
}

fn check(database: &Connection, path: &Path) -> Result<(), SchemaError> {
    let pragma = |name: &str| {
        database
            .pragma_query_value(None, name, |row| row.get::<_, i32>(0))
            .map_err(|error| open_error(path, error))
    };
    let (application, version) = (pragma("application_id")?, pragma("user_version")?);
    let objects: i64 = database
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(|error| open_error(path, error))?;
    let is_new = objects == 0 && application == 0 && version == 0;
    if application != APPLICATION_ID && !is_new {
        return Err(SchemaError::Foreign(path.to_owned()));
    }
    if version > VERSION {
        return Err(SchemaError::Newer {
            path: path.to_owned(),
            found: version,
        });
    }
    Ok(())
}

fn configure(database: &Connection) -> rusqlite::Result<()> {
    // Before the first table, or it has no effect.
    database.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    database.pragma_update(None, "journal_mode", "WAL")?;
    database.pragma_update(None, "synchronous", "FULL")?;
    // The writer checkpoints by itself, so that it sees what a failed fsync there says.
    database.pragma_update(None, "wal_autocheckpoint", 0)?;
    database.pragma_update(None, "journal_size_limit", 64 << 20)?;
    database.pragma_update(None, "temp_store", "MEMORY")?;
    database.busy_timeout(Duration::from_secs(5))?;
    database.set_prepared_statement_cache_capacity(64);
    Ok(())
}

fn migrate(database: &mut Connection) -> rusqlite::Result<()> {
    let version: i32 = database.pragma_query_value(None, "user_version", |row| row.get(0))?;
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

fn open_error(path: &Path, source: rusqlite::Error) -> SchemaError {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt) => SchemaError::Damaged { path, source },
        Some(ErrorCode::NotADatabase) if header_is_blank(&path) => {
            SchemaError::Damaged { path, source }
        }
        Some(ErrorCode::NotADatabase) => SchemaError::Foreign(path),
        _ => SchemaError::Open { path, source },
    }
}

/// A file that begins with zeros was a database once whose first page was lost; any other text is
/// somebody else's file.
fn header_is_blank(path: &Path) -> bool {
    use std::io::Read;
    let mut header = [1; 16];
    std::fs::File::open(path)
        .and_then(|mut file| file.read_exact(&mut header))
        .is_ok()
        && header == [0; 16]
}

fn io_to_sqlite(error: &std::io::Error) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN),
        Some(error.to_string()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_database_is_ours_in_wal_mode_and_synced() {
        let dir = tempfile::tempdir().unwrap();
        let database = open(&dir.path().join("journal.db")).unwrap();
        let text = |name| database.pragma_query_value(None, name, |row| row.get::<_, String>(0));
        let number = |name| database.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
        assert_eq!(text("journal_mode").unwrap(), "wal");
        assert_eq!(number("synchronous").unwrap(), 2);
        assert_eq!(number("auto_vacuum").unwrap(), 2);
        assert_eq!(number("user_version").unwrap(), VERSION);
    }

    #[test]
    fn what_is_not_ours_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.db");
        std::fs::write(&path, "somebody's notes, long enough to be looked at").unwrap();
        assert!(matches!(open(&path), Err(SchemaError::Foreign(_))));
        std::fs::remove_file(&path).unwrap();

        let foreign = Connection::open(&path).unwrap();
        foreign.execute_batch("CREATE TABLE theirs (x)").unwrap();
        drop(foreign);
        assert!(matches!(open(&path), Err(SchemaError::Foreign(_))));
    }

    #[test]
    fn a_newer_schema_is_refused_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.db");
        open(&path)
            .unwrap()
            .pragma_update(None, "user_version", VERSION + 1)
            .unwrap();
        let before = std::fs::read(&path).unwrap();
        assert!(
            matches!(open(&path), Err(SchemaError::Newer { found, .. }) if found == VERSION + 1)
        );
        assert_eq!(before, std::fs::read(&path).unwrap());
    }
}
