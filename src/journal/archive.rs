//! The journal as commands read it, beside a running bridge or without one: in pages, each a short
//! transaction, so that the log can begin anew meanwhile however long the journal is. Changes
//! nothing.

mod entry;
mod selection;

use std::path::Path;
use std::{fs, io};

use rusqlite::{Connection, OptionalExtension};
use uuid::Uuid;

pub use entry::{Entry, Place};
pub use selection::{Selection, State};

use super::directory::{self, DATABASE};
use super::rows::Seq;
use super::{TakeError, VisitError, schema};
use entry::{BODIES, NO_BODIES, TABLES};
use selection::Bounds;

/// Events looked at in one transaction.
const SCANNED_MAX: i64 = 1000;
/// Bodies in one page, unless one alone is larger.
const PAGE_BYTES_MAX: u64 = 4 << 20;

const NEXT: &str = "SELECT max(seq), count(*) FROM
     (SELECT seq FROM events WHERE seq > ?1 AND seq <= ?2 ORDER BY seq LIMIT ?3)";
const PREVIOUS: &str = "SELECT min(seq), count(*) FROM
     (SELECT seq FROM events WHERE seq > ?1 AND seq <= ?2 ORDER BY seq DESC LIMIT ?3)";

/// A connection that reads.
#[derive(Debug)]
pub struct Archive {
    database: Connection,
}

/// Some events in the order of receipt.
#[derive(Debug, Default)]
pub struct Page {
    /// Those that are selected; perhaps none.
    pub entries: Vec<Entry>,
    /// Where the next page begins, if there is one.
    pub next: Option<Seq>,
}

/// How much is selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Survey {
    /// Events in all.
    pub events: u64,
    /// Of these, how many the bridge has still to publish.
    pub unsettled: u64,
}

impl Archive {
    /// Opens the journal in a directory.
    ///
    /// # Errors
    /// There is none, it belongs to another user, or this release does not know it.
    pub fn open(dir: &Path) -> Result<Self, VisitError> {
        check(dir)?;
        let database = schema::open_reading(&dir.join(DATABASE))?;
        database.set_prepared_statement_cache_capacity(16);
        Ok(Self { database })
    }

    /// What is selected behind a number; without bodies if they are not wanted.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn page(
        &self,
        selection: &Selection,
        after: Seq,
        with_bodies: bool,
    ) -> Result<Page, TakeError> {
        self.in_snapshot(|| {
            let Some((bounds, has_more)) = self.bounds(NEXT, selection, after, Seq::MAX)? else {
                return Ok(Page::default());
            };
            let (entries, cut) = self.entries(selection, &bounds, with_bodies, "ASC")?;
            let next = cut.or(has_more.then_some(bounds.last));
            Ok(Page { entries, next })
        })
    }

    /// The last events that are selected, so many at most, in the order of receipt; without bodies.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn last(&self, selection: &Selection, events_max: usize) -> Result<Vec<Entry>, TakeError> {
        let mut found = Vec::new();
        let mut last = Seq::MAX;
        while found.len() < events_max {
            let page = self.in_snapshot(|| {
                let Some((bounds, _)) = self.bounds(PREVIOUS, selection, 0, last)? else {
                    return Ok(None);
                };
                let (entries, _) = self.entries(selection, &bounds, false, "DESC")?;
                Ok(Some((entries, bounds.after)))
            })?;
            let Some((entries, before)) = page else { break };
            found.extend(entries);
            last = before;
        }
        found.truncate(events_max);
        found.reverse();
        Ok(found)
    }

    /// Counts what is selected.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn survey(&self, selection: &Selection) -> Result<Survey, TakeError> {
        let statement = format!(
            "SELECT count(*), coalesce(sum(s.seq IS NULL), 0) {TABLES} WHERE {}",
            selection::CONDITIONS
        );
        let mut survey = Survey::default();
        let mut next = Some(0);
        while let Some(after) = next {
            next = self.in_snapshot(|| {
                let Some((bounds, has_more)) = self.bounds(NEXT, selection, after, Seq::MAX)?
                else {
                    return Ok(None);
                };
                let mut statement = self.database.prepare_cached(&statement)?;
                let (events, unsettled) = selection.query(&bounds, |parameters| {
                    statement.query_row(parameters, |row| {
                        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
                    })
                })?;
                survey.events += events.unsigned_abs();
                survey.unsettled += unsettled.unsigned_abs();
                Ok(has_more.then_some(bounds.last))
            })?;
        }
        Ok(survey)
    }

    /// One event with its body.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn entry(&self, seq: Seq) -> Result<Option<Entry>, TakeError> {
        let statement = format!("SELECT {BODIES} {TABLES} WHERE e.seq = ?1");
        let mut statement = self.database.prepare_cached(&statement)?;
        Ok(statement.query_row([seq], entry::read).optional()?)
    }

    /// The numbers of the events with this `message_id`: the same event may have come twice.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn with_message_id(&self, message_id: Uuid) -> Result<Vec<Seq>, TakeError> {
        let mut statement = self.database.prepare_cached(
            "SELECT seq FROM events WHERE seq > ?1 AND seq <= ?2 AND message_id = ?3 ORDER BY seq",
        )?;
        let (mut found, mut next) = (Vec::new(), Some(0));
        while let Some(after) = next {
            next = self.in_snapshot(|| {
                let everything = Selection::default();
                let Some((bounds, has_more)) = self.bounds(NEXT, &everything, after, Seq::MAX)?
                else {
                    return Ok(None);
                };
                let parameters = (bounds.after, bounds.last, message_id.as_bytes());
                let seqs = statement.query_map(parameters, |row| row.get(0))?;
                for seq in seqs {
                    found.push(seq?);
                }
                Ok(has_more.then_some(bounds.last))
            })?;
        }
        Ok(found)
    }

    /// The number of the last event; 0 without any.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn newest(&self) -> Result<Seq, TakeError> {
        let statement = "SELECT coalesce(max(seq), 0) FROM events";
        Ok(self.database.query_row(statement, [], |row| row.get(0))?)
    }

    /// Which events one transaction looks at, and whether that was not all.
    fn bounds(
        &self,
        statement: &str,
        selection: &Selection,
        after: Seq,
        last: Seq,
    ) -> rusqlite::Result<Option<(Bounds, bool)>> {
        let within = selection.bounds();
        let (after, last) = (after.max(within.after), last.min(within.last));
        let (end, scanned): (Option<Seq>, i64) = self
            .database
            .prepare_cached(statement)?
            .query_row((after, last, SCANNED_MAX), |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        let Some(end) = end else { return Ok(None) };
        let bounds = if statement == NEXT {
            Bounds { after, last: end }
        } else {
            Bounds {
                after: end - 1,
                last,
            }
        };
        Ok(Some((bounds, scanned >= SCANNED_MAX)))
    }

    /// The selected events within bounds, and where they were cut off, if they were too large.
    fn entries(
        &self,
        selection: &Selection,
        bounds: &Bounds,
        with_bodies: bool,
        order: &str,
    ) -> rusqlite::Result<(Vec<Entry>, Option<Seq>)> {
        let columns = if with_bodies { BODIES } else { NO_BODIES };
        let conditions = selection::CONDITIONS;
        let statement =
            format!("SELECT {columns} {TABLES} WHERE {conditions} ORDER BY e.seq {order}");
        let mut statement = self.database.prepare_cached(&statement)?;
        selection.query(bounds, |parameters| {
            let mut rows = statement.query(parameters)?;
            let (mut entries, mut bytes) = (Vec::new(), 0);
            while let Some(row) = rows.next()? {
                let entry = entry::read(row)?;
                bytes += entry.event.body.len() as u64;
                let seq = entry.seq;
                entries.push(entry);
                if bytes >= PAGE_BYTES_MAX {
                    return Ok((entries, Some(seq)));
                }
            }
            Ok((entries, None))
        })
    }

    fn in_snapshot<T>(&self, read: impl FnOnce() -> rusqlite::Result<T>) -> Result<T, TakeError> {
        self.database.execute_batch("BEGIN")?;
        let result = read();
        self.database.execute_batch("COMMIT")?;
        Ok(result?)
    }
}

/// Whether there is a journal that this user may look at.
pub(super) fn check(dir: &Path) -> Result<(), VisitError> {
    let found = fs::symlink_metadata(dir.join(DATABASE));
    if found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Err(VisitError::Missing(dir.to_owned()));
    }
    Ok(directory::check_visitor(dir)?)
}
