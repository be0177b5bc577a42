//! A database that SQLite reports as corrupt is set aside whole, and what is readable of its
//! unsettled events carried over into a new one. Nothing is deleted.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::Connection;

use super::directory::Directory;
use super::rows::Seq;
use super::store::Store;
use super::{OpenError, reader, schema, writer};
use crate::webhook::Event;
use crate::webhook::routing::Routing;

/// Databases up to this size are checked at every start; larger ones when something is wrong.
const CHECKED_BYTES_MAX: u64 = 64 << 20;
/// Left behind by a process that met damage, so that the next one looks for it.
const SUSPECT: &str = "journal.suspect";
/// Events carried over in one transaction.
const CARRIED_AT_ONCE: usize = 500;

/// Opens the database of a directory, a new one if it is damaged; says then where the damaged one
/// lies now and how many of its events are lost.
pub(super) fn open(
    directory: &Directory,
    routing: Arc<Routing>,
    is_retaining: bool,
) -> Result<(Store, Option<(PathBuf, u64)>), OpenError> {
    let path = directory.database();
    if !is_damaged(directory)? {
        let store = Store::new(schema::open(&path)?, routing, is_retaining)?;
        return Ok((store, None));
    }
    let aside = set_aside(&path).map_err(|source| OpenError::SetAside {
        path: path.clone(),
        source,
    })?;
    let mut store = Store::new(schema::open(&path)?, routing, is_retaining)?;
    let lost = carry_over(&aside, &mut store)?;
    let _ = fs::remove_file(directory.path().join(SUSPECT));
    Ok((store, Some((aside, lost))))
}

/// Leaves a note that the database is to be checked at the next start.
pub(super) fn suspect(database: &Path) {
    // If even this cannot be written, the next start finds the damage the slow way.
    let _ = fs::write(database.with_file_name(SUSPECT), "SQLite reported damage\n");
}

/// Whether the database is damaged beyond what SQLite repairs by itself, confirmed by its own
/// check.
fn is_damaged(directory: &Directory) -> Result<bool, OpenError> {
    let path = directory.database();
    let size = fs::metadata(&path).map_or(0, |found| found.len());
    let note = directory.path().join(SUSPECT);
    let is_suspect = match schema::open(&path) {
        Err(schema::SchemaError::Damaged { .. }) => true,
        Err(error) => return Err(error.into()),
        Ok(_) => note.exists() || size <= CHECKED_BYTES_MAX,
    };
    let is_damaged = is_suspect && !passes_check(&path);
    if !is_damaged {
        let _ = fs::remove_file(note);
    }
    Ok(is_damaged)
}

fn passes_check(path: &Path) -> bool {
    let verdict = Connection::open(path).and_then(|database| {
        database.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))
    });
    match verdict {
        Ok(verdict) => verdict == "ok",
        Err(error) => !writer::is_damage(&error),
    }
}

fn set_aside(path: &Path) -> std::io::Result<PathBuf> {
    let time = Timestamp::now().strftime("%Y%m%dT%H%M%S%3fZ").to_string();
    let with_suffix = |path: &Path, suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let aside = with_suffix(path, &format!(".damaged-{time}"));
    // Database last: until it is gone, a start that was interrupted here tries again.
    for suffix in ["-wal", "-shm", ""] {
        let from = with_suffix(path, suffix);
        if from.exists() {
            fs::rename(from, with_suffix(&aside, suffix))?;
        }
    }
    Ok(aside)
}

/// Copies what is readable; returns how many unsettled events are not.
fn carry_over(aside: &Path, store: &mut Store) -> rusqlite::Result<u64> {
    let Ok(damaged) = Connection::open(aside) else {
        return store.count_lost(0);
    };
    let seqs = unsettled(&damaged);
    let expected = expected(&damaged).max(seqs.len() as u64);
    let mut carried = 0;
    let mut events = Vec::new();
    for seq in seqs {
        events.extend(event(&damaged, seq));
        if events.len() == CARRIED_AT_ONCE {
            carried += store.carry(&std::mem::take(&mut events))?;
        }
    }
    carried += store.carry(&events)?;
    store.count_lost(expected.saturating_sub(carried))
}

/// The unsettled events that the table or any of its indexes still knows.
fn unsettled(damaged: &Connection) -> BTreeSet<Seq> {
    let mut found = BTreeSet::new();
    for statement in [
        "SELECT seq FROM pending NOT INDEXED",
        "SELECT seq FROM pending INDEXED BY pending_head WHERE head = 1",
        "SELECT seq FROM pending INDEXED BY pending_session WHERE session IS NOT NULL",
    ] {
        let Ok(mut statement) = damaged.prepare(statement) else {
            continue;
        };
        let Ok(rows) = statement.query_map([], |row| row.get::<_, Seq>(0)) else {
            continue;
        };
        found.extend(rows.map_while(Result::ok));
    }
    found
}

fn expected(damaged: &Connection) -> u64 {
    damaged
        .query_row(
            "SELECT value FROM totals WHERE name = 'backlog_events'",
            [],
            |row| row.get::<_, i64>(0),
        )
        .map_or(0, |count| u64::try_from(count).unwrap_or_default())
}

fn event(damaged: &Connection, seq: Seq) -> Option<Event> {
    damaged
        .prepare_cached("SELECT * FROM events WHERE seq = ?1")
        .and_then(|mut statement| statement.query_row([seq], reader::event))
        .ok()
}
