//! Migrates a journal of schema 1, 2 or 3 to the current schema. It is copied into a new file,
//! which takes the name of the old one when it is complete. If a start is interrupted, the next one
//! begins again; until the rename, the contents of the old file do not change.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::Connection;
use rusqlite::types::{ToSqlOutput, ValueRef};

use super::completed::Completion;
use super::disk_space::Space;
use super::files::{self, FileError};
use super::interface::Seq;
use super::legacy::{self, event_columns};
use super::schema;
use super::stored::{self, timestamp};
use super::{OpenError, disk_size};
use crate::failpoint::{self, Failpoint};
use crate::webhook::Event;

/// Events copied in one transaction, and the bytes of their bodies, unless a single body is larger.
const COPIED_EVENTS_MAX: usize = 1000;
const COPIED_BYTES_MAX: usize = 8 << 20;

const NEXT: &str = concat!(
    "SELECT ",
    event_columns!(),
    ", s.at, s.kept FROM old.events e LEFT JOIN old.settled s ON s.seq = e.seq
     WHERE e.seq > ?1 AND (?2 OR s.seq IS NULL OR s.kept = 1) ORDER BY e.seq"
);

/// Copies all rows that are the same in both schemas. Sizes are left out: the new schema counts
/// them differently. An event that is pending without a row in the old `pending` gets none in the
/// new one either; the window will contain it.
const SAME_ROWS: &str = "
INSERT INTO routes SELECT id, exchange, routing_key FROM old.routes;
INSERT INTO settings SELECT name, value FROM old.settings;
INSERT INTO totals
  SELECT name, source, label, value FROM old.totals WHERE name NOT LIKE '%bytes'
  UNION ALL
  SELECT 'window_first', '', '', value + 1 FROM old.totals WHERE name = 'last_seq';
INSERT INTO pending
  SELECT seq, source, session, bytes, label, route, head, due, attempts, reason, detail, at
  FROM old.pending
  WHERE seq IN (SELECT seq FROM old.events) AND seq NOT IN (SELECT seq FROM old.settled);";
const REQUESTS: &str = "INSERT INTO wishes SELECT id, kind, value FROM old.wishes";
const OUTCOMES: &str = "INSERT INTO outcomes SELECT seq, outcome, attempts, kept FROM old.settled
    WHERE (?1 OR kept = 1) AND (outcome <> 'published' OR attempts <> 1 OR kept = 1)
      AND seq IN (SELECT seq FROM old.events)";

/// Consecutive events of the old journal.
#[derive(Default)]
struct Page {
    events: Vec<(Seq, Arc<Event>)>,
    /// When its completed events were completed, and whether retention must keep them.
    completed: BTreeMap<Seq, (Timestamp, bool)>,
}

/// Migrates an undamaged journal from schema version `found`.
pub(super) fn run(path: &Path, found: i32) -> Result<(), OpenError> {
    let old = schema::open(path)?;
    let is_whole = has_room(path);
    tracing::info!(
        from = found,
        to = schema::VERSION,
        "migrating the journal to this release's schema"
    );
    if !is_whole {
        tracing::warn!("no disk space to copy completed events; migrating only pending ones");
    }
    let next = files::with_suffix(path, files::NEW);
    let mut new = schema::create_under_way(&next)?;
    failpoint::pass(Failpoint::JournalMigrateBefore);
    let events = copy(path, &mut new, is_whole)?;
    let failed = |(_, error)| schema::open_error(&next, error);
    new.close().map_err(failed)?;
    replace(path, old, &next)?;
    failpoint::pass(Failpoint::JournalMigrateAfter);
    tracing::info!(events, "journal migrated");
    Ok(())
}

fn has_room(path: &Path) -> bool {
    let space = path.parent().and_then(|dir| Space::of(dir).ok());
    space.is_none_or(|space| space.free > space.journal.saturating_mul(2))
}

/// The WAL of the old file is checkpointed first: the old file must be complete without it when the
/// new one takes its name.
fn replace(path: &Path, old: Connection, next: &Path) -> Result<(), OpenError> {
    let replacing = FileError::of("replacing", path);
    let busy: i64 = old.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if busy != 0 {
        return Err(OpenError::Locked(super::locks::reader(path)));
    }
    old.close().map_err(|(_, error)| error)?;
    for suffix in ["-wal", "-shm"] {
        let file = files::with_suffix(path, suffix);
        if file.try_exists().map_err(&replacing)? {
            fs::remove_file(file).map_err(&replacing)?;
        }
    }
    fs::rename(next, path).map_err(&replacing)?;
    Ok(files::sync_directory_of(path).map_err(replacing)?)
}

/// Copies all events, or all except the completed ones that retention could delete. Returns their
/// number.
fn copy(old: &Path, new: &mut Connection, is_whole: bool) -> rusqlite::Result<u64> {
    let path = ToSqlOutput::Borrowed(ValueRef::Text(old.as_os_str().as_bytes()));
    new.execute("ATTACH ?1 AS old", [path])?;
    let transaction = new.transaction()?;
    transaction.execute_batch(SAME_ROWS)?;
    transaction.execute(OUTCOMES, [is_whole])?;
    if transaction.table_exists(Some("old"), "wishes")? {
        transaction.execute(REQUESTS, [])?;
    }
    transaction.commit()?;
    let (mut after, mut count, mut completed) = (0, 0, 0);
    loop {
        let page = page(new, after, is_whole)?;
        let Some((last, _)) = page.events.last() else {
            return Ok(count);
        };
        after = *last;
        count += page.events.len() as u64;
        let transaction = new.transaction()?;
        completed = write(&transaction, &page, completed)?;
        transaction.commit()?;
    }
}

fn page(database: &Connection, after: Seq, is_whole: bool) -> rusqlite::Result<Page> {
    let mut statement = database.prepare_cached(NEXT)?;
    let mut rows = statement.query((after, is_whole))?;
    let (mut page, mut bytes) = (Page::default(), 0);
    while page.events.len() < COPIED_EVENTS_MAX
        && bytes < COPIED_BYTES_MAX
        && let Some(row) = rows.next()?
    {
        let (seq, event) = (row.get(0)?, legacy::read(row)?);
        bytes += event.body.len();
        page.events.push((seq, Arc::new(event)));
        if let Some(at) = row.get::<_, Option<i64>>(legacy::COLUMNS)? {
            let at = timestamp(at).unwrap_or_default();
            let is_exempt = row.get(legacy::COLUMNS + 1)?;
            page.completed.insert(seq, (at, is_exempt));
        }
    }
    Ok(page)
}

/// Writes the events of a page, and which of them are completed. `completed` is the id of the last
/// row of `completed`, before and after.
fn write(new: &Connection, page: &Page, completed: i64) -> rusqlite::Result<i64> {
    let mut completion = Completion::default();
    for (mut first, events) in stored::by_webhook(&page.events) {
        for part in stored::parts(&events) {
            let bytes = disk_size::of_part(stored::write(new, first, part)?);
            let stays = |seq: Seq| {
                page.completed
                    .get(&seq)
                    .is_none_or(|(_, is_exempt)| *is_exempt)
            };
            let last = first + Seq::try_from(part.len()).unwrap_or_default() - 1;
            if !(first..=last).any(stays) {
                completion.closed(first, last, disk_size::signed(bytes));
            }
            first = last + 1;
        }
    }
    for seq in page.completed.keys() {
        completion.completed(*seq);
    }
    // One time for the whole page: some events are kept a little longer than they would have been.
    let at = page.completed.values().map(|(at, _)| *at).max();
    completion.write(new, completed, at.unwrap_or_default())
}
