//! Replaces a database that SQLite reports as corrupt: it is set aside whole, and its readable
//! pending events are copied into a new one. Nothing is deleted. If a start is interrupted at any
//! point, the next one repeats or finishes the work.

mod first_page;
mod salvage;
mod swap;
mod wal;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use rusqlite::{Connection, ErrorCode};

use super::directory::{self, Directory, SUSPECT};
use super::files::{self, FileError};
use super::schema::{self, SchemaError};
use super::store::Store;
use super::{OpenError, migration};
use crate::webhook::routing::Routing;

/// Databases up to this size are checked at every start; larger ones only if an earlier process
/// found damage (`SUSPECT`) or the database cannot be opened.
const CHECKED_BYTES_MAX: u64 = 64 << 20;
const QUICK_CHECK: &str = "PRAGMA quick_check(1)";
const INTEGRITY_CHECK: &str = "PRAGMA integrity_check(1)";
const SETTING_ASIDE: &str = "setting aside the damaged";

/// Opens the database of a directory, or a new one if it is damaged or missing. In the first case
/// it also returns the new path of the damaged one and the number of lost events.
pub(super) fn open(
    directory: &Directory,
    routing: Arc<Routing>,
) -> Result<(Store, Option<(PathBuf, u64)>), OpenError> {
    open_checking(directory, routing, CHECKED_BYTES_MAX)
}

/// Like [`open`], but checks only databases up to `checked_bytes_max`.
pub(super) fn open_checking(
    directory: &Directory,
    routing: Arc<Routing>,
    checked_bytes_max: u64,
) -> Result<(Store, Option<(PathBuf, u64)>), OpenError> {
    let path = directory.database();
    let failed = FileError::of(SETTING_ASIDE, &path);
    let mut aside = swap::finish(&path).map_err(&failed)?;
    if wal::has_gap(&path).map_err(&failed)? || is_damaged(&path, checked_bytes_max)? {
        aside = replace(&path, &routing)?;
    }
    let store = match open_store(&path, Arc::clone(&routing)) {
        // Of a large database that is not checked, SQLite finds only the damage that it meets.
        Err(error) if aside.is_none() && is_because_of_damage(&error) => {
            aside = replace(&path, &routing)?;
            open_store(&path, routing)?
        }
        store => store?,
    };
    let _ = fs::remove_file(path.with_file_name(SUSPECT));
    let lost = store.totals().lost_events;
    Ok((store, aside.map(|aside| (aside, lost))))
}

fn open_store(path: &Path, routing: Arc<Routing>) -> Result<Store, OpenError> {
    if !path.try_exists().map_err(FileError::of("opening", path))? {
        schema::create(path)?;
    }
    let (_, version) = schema::open_checked(path)?;
    if version < schema::VERSION {
        migration::run(path, version)?;
    }
    Ok(Store::new(schema::open(path)?, routing)?)
}

fn is_because_of_damage(error: &OpenError) -> bool {
    match error {
        OpenError::Schema(SchemaError::Damaged { .. })
        // A value of a kind that is never written to its column.
        | OpenError::Sqlite(
            rusqlite::Error::InvalidColumnType(..) | rusqlite::Error::IntegralValueOutOfRange(..),
        ) => true,
        OpenError::Sqlite(error) => is_damage(error),
        _ => false,
    }
}

/// Replaces the damaged database; returns the path where the damaged one is now.
fn replace(path: &Path, routing: &Arc<Routing>) -> Result<Option<PathBuf>, OpenError> {
    let failed = FileError::of(SETTING_ASIDE, path);
    let next = files::with_suffix(path, files::NEW);
    let mut store = Store::new(schema::create_under_way(&next)?, routing.clone())?;
    store.checkpoint()?;
    let is_torn = wal::has_gap(path).map_err(&failed)?;
    let copy = if is_torn && path.try_exists().map_err(&failed)? {
        Some(wal::copy_over_gap(path).map_err(&failed)?)
    } else if !salvage::is_readable(path) && schema::has_lost_header(path) {
        Some(first_page::restore_header(path, &next).map_err(&failed)?)
    } else {
        None
    };
    let readable = copy.as_ref().map_or(path, |copy| copy.0.as_path());
    salvage::import(readable, is_torn, &mut store)?;
    store.close()?;
    Ok(swap::begin(path, &next).map_err(failed)?)
}

/// Creates the file `SUSPECT`, so that the next start checks the database.
pub(super) fn suspect(database: &Path) {
    // If even this file cannot be written, a later process meets the damage again.
    let _ = files::open_private(&database.with_file_name(SUSPECT));
}

/// Whether the database in a directory is damaged, as far as a start checks it: up to 64 MiB, or after a
/// process has met damage. Changes nothing; a bridge may be running.
#[must_use]
pub fn is_known_damaged(dir: &Path) -> bool {
    let path = dir.join(directory::DATABASE);
    path.exists() && is_damaged(&path, CHECKED_BYTES_MAX).unwrap_or(false)
}

/// Whether the database has damage that SQLite does not repair by itself, confirmed by
/// a check of SQLite.
fn is_damaged(path: &Path, checked_bytes_max: u64) -> Result<bool, OpenError> {
    let wal = files::with_suffix(path, "-wal");
    let size = match fs::metadata(path) {
        Ok(found) => found.len(),
        // A WAL without its database is what remains of a lost database.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(fs::metadata(wal).is_ok_and(|found| found.len() > 0));
        }
        Err(_) => 1,
    };
    if size == 0 {
        // Databases are created under another name and are never empty: this one has lost
        // everything.
        return Ok(true);
    }
    match schema::open_checked(path) {
        Ok((database, _)) => {
            let is_suspect = path.with_file_name(SUSPECT).exists();
            // A process has met damage that only a comparison of tables and indexes may find.
            let check = if is_suspect {
                INTEGRITY_CHECK
            } else {
                QUICK_CHECK
            };
            Ok((is_suspect || size <= checked_bytes_max) && !passes(check, &database))
        }
        Err(SchemaError::Damaged { .. }) => {
            Ok(!schema::open_untouched(path).is_ok_and(|database| passes(QUICK_CHECK, &database)))
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether SQLite reports a damaged database.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

fn passes(check: &str, database: &Connection) -> bool {
    let verdict = database.query_row(check, [], |row| row.get::<_, String>(0));
    match verdict {
        Ok(verdict) => verdict == "ok",
        Err(error) => !is_damage(&error),
    }
}
