//! A database that SQLite reports as corrupt is set aside whole, and what is readable of its
//! unsettled events carried over into a new one. Nothing is deleted, and a start that is
//! interrupted anywhere in between begins or ends the same work again.

mod head;
mod salvage;
mod swap;

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;

use super::directory::{Directory, SUSPECT};
use super::schema::{self, SchemaError};
use super::store::Store;
use super::{OpenError, files, writer};
use crate::webhook::routing::Routing;

/// Databases up to this size are checked at every start; larger ones when something is wrong.
const CHECKED_BYTES_MAX: u64 = 64 << 20;

/// Opens the database of a directory, a new one if it is damaged or there is none; says then where
/// the damaged one lies now and how many of its events are lost.
pub(super) fn open(
    directory: &Directory,
    routing: Arc<Routing>,
    is_retaining: bool,
) -> Result<(Store, Option<(PathBuf, u64)>), OpenError> {
    let path = directory.database();
    let failed = |source| OpenError::SetAside {
        path: path.clone(),
        source,
    };
    let mut aside = swap::finish(&path).map_err(failed)?;
    if is_damaged(&path)? {
        aside = replace(&path, routing.clone(), is_retaining)?;
    }
    if !path.try_exists().map_err(failed)? {
        schema::create(&path)?;
    }
    let store = Store::new(schema::open(&path)?, routing, is_retaining)?;
    let _ = fs::remove_file(path.with_file_name(SUSPECT));
    let lost = store.totals().lost_events;
    Ok((store, aside.map(|aside| (aside, lost))))
}

/// Says where the damaged one lies now.
fn replace(
    path: &Path,
    routing: Arc<Routing>,
    is_retaining: bool,
) -> Result<Option<PathBuf>, OpenError> {
    let failed = |source| OpenError::SetAside {
        path: path.to_owned(),
        source,
    };
    let next = files::with_suffix(path, files::NEW);
    let mut store = Store::new(schema::create_under_way(&next)?, routing, is_retaining)?;
    store.checkpoint()?;
    let is_beheaded = !salvage::is_readable(path) && schema::is_beheaded(path);
    let copy = is_beheaded.then(|| head::transplant(path, &next));
    let copy = copy.transpose().map_err(failed)?;
    salvage::carry_over(copy.as_ref().map_or(path, head::Copy::path), &mut store)?;
    store.close()?;
    swap::begin(path, &next).map_err(failed)
}

/// Leaves a note that the database is to be checked at the next start.
pub(super) fn suspect(database: &Path) {
    // If even this cannot be written, the next start finds the damage the slow way.
    let _ = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(files::NO_LINK)
        .open(database.with_file_name(SUSPECT));
}

/// Whether the database is damaged beyond what SQLite repairs by itself, confirmed by its own
/// check.
fn is_damaged(path: &Path) -> Result<bool, OpenError> {
    let wal = files::with_suffix(path, "-wal");
    let size = match fs::metadata(path) {
        Ok(found) => found.len(),
        // Without its database a log is what is left of one.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(fs::metadata(wal).is_ok_and(|found| found.len() > 0));
        }
        Err(_) => 1,
    };
    if size == 0 {
        // One is created under another name: it has lost everything.
        return Ok(true);
    }
    match schema::look(path) {
        Ok(database) => {
            let is_suspect = path.with_file_name(SUSPECT).exists() || size <= CHECKED_BYTES_MAX;
            Ok(is_suspect && !passes_check(&database))
        }
        Err(SchemaError::Damaged { .. }) => {
            Ok(!schema::open_untouched(path).is_ok_and(|database| passes_check(&database)))
        }
        Err(error) => Err(error.into()),
    }
}

fn passes_check(database: &Connection) -> bool {
    let verdict = database.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    match verdict {
        Ok(verdict) => verdict == "ok",
        Err(error) => !writer::is_damage(&error),
    }
}
