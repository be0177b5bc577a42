//! The archive as a search uses it. It only says which rows to read. Rows that are not indexed yet
//! are all read, and what it finds is compared with the journal.

use std::path::Path;

use rusqlite::Connection;

use super::file::{self, PARTITION_EVENTS, Progress, Unusable, numbers};
use super::next_range::{Direction, NextRange, Rows};
use super::selection::Bounds;
use super::{SCANNED_MAX, SCANNED_ROWS, Selection, document};
use crate::journal::directory::ARCHIVE;
use crate::journal::interface::Seq;
use crate::journal::stored::PART_REACH;

/// Whether the archive indexes any condition of a selection.
pub(super) fn helps_with(selection: &Selection) -> bool {
    let has_period = selection.since.is_some() || selection.until.is_some();
    has_period || document::expression(selection).is_some()
}

/// A read-only connection to the archive.
#[derive(Debug)]
pub(super) struct Index {
    archive: Connection,
}

impl Index {
    /// Opens the archive in a directory, if it belongs to this journal.
    pub(super) fn open(dir: &Path, journal: &Connection) -> Result<Self, Unusable> {
        let archive = file::open_reading(&dir.join(ARCHIVE), journal)?;
        Ok(Self { archive })
    }

    /// The number up to which all events are indexed.
    pub(super) fn indexed(&self) -> rusqlite::Result<Seq> {
        Ok(Progress::read(&self.archive)?.indexed)
    }

    /// Finds the rows that may contain the next selected events within bounds.
    pub(super) fn next_range(
        &self,
        selection: &Selection,
        bounds: Bounds,
        direction: Direction,
    ) -> rusqlite::Result<NextRange> {
        let expression = document::expression(selection);
        if expression.is_none() && selection.since.is_none() && selection.until.is_none() {
            return Ok(NextRange::all(bounds));
        }
        // One snapshot for all queries: otherwise a partition could be deleted in between.
        let snapshot = self.archive.unchecked_transaction()?;
        let indexed = self.indexed()?;
        let next_range = NextRange::known_until(indexed, bounds, direction, |bounds| {
            let Some(period) = self.period(selection, bounds)? else {
                return Ok(NextRange {
                    bounds,
                    rows: Rows::With(Vec::new()),
                });
            };
            match &expression {
                Some(expression) => self.with(expression, period, bounds, direction),
                None => Ok(NextRange::all(period)),
            }
        });
        snapshot.commit()?;
        next_range
    }

    /// Restricts bounds to the period of the selection; `None` if they have no event in common.
    fn period(&self, selection: &Selection, bounds: Bounds) -> rusqlite::Result<Option<Bounds>> {
        let micros = |at: Option<jiff::Timestamp>| at.map(jiff::Timestamp::as_microsecond);
        let (since, until) = (micros(selection.since), micros(selection.until));
        if since.is_none() && until.is_none() {
            return Ok(Some(bounds));
        }
        let spans = "SELECT min(first), max(last) FROM spans
            WHERE received_max >= ?1 AND received_min < ?2 AND last > ?3 AND first <= ?4";
        let found: (Option<Seq>, Option<Seq>) = self.archive.prepare_cached(spans)?.query_row(
            (
                since.unwrap_or(i64::MIN),
                until.unwrap_or(i64::MAX),
                bounds.after,
                bounds.last,
            ),
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let (Some(first), Some(last)) = found else {
            return Ok(None);
        };
        Ok(Some(Bounds {
            after: bounds.after.max(first - 1),
            last: bounds.last.min(last),
        }))
    }

    /// Finds the rows that match an expression, in a period within bounds.
    fn with(
        &self,
        expression: &str,
        period: Bounds,
        bounds: Bounds,
        direction: Direction,
    ) -> rusqlite::Result<NextRange> {
        // A row may begin before the first event of the period.
        let within = (period.after.saturating_sub(PART_REACH), period.last);
        let order = direction.order();
        let partitions = format!(
            "SELECT number FROM partitions WHERE number BETWEEN ?1 AND ?2 ORDER BY number {order}"
        );
        let of = |seq: Seq| seq.div_euclid(PARTITION_EVENTS);
        let partitions = numbers(&self.archive, &partitions, (of(within.0), of(within.1)))?;
        let mut found: Vec<Seq> = Vec::new();
        for partition in partitions {
            let select = format!(
                "SELECT rowid FROM words_{partition} WHERE words_{partition} MATCH ?1
                   AND rowid BETWEEN ?2 AND ?3 ORDER BY rowid {order} LIMIT ?4"
            );
            let parameters = (expression, within.0, within.1, SCANNED_ROWS);
            found.extend(numbers(&self.archive, &select, parameters)?);
            if found.len() >= SCANNED_MAX {
                break;
            }
        }
        let unindexed = format!(
            "SELECT first FROM unindexed WHERE first BETWEEN ?1 AND ?2 ORDER BY first {order}
             LIMIT ?3"
        );
        let parameters = (within.0, within.1, SCANNED_ROWS);
        found.extend(numbers(&self.archive, &unindexed, parameters)?);
        match direction {
            Direction::Forward => found.sort_unstable(),
            Direction::Backward => found.sort_unstable_by(|one, other| other.cmp(one)),
        }
        found.truncate(SCANNED_MAX);
        let mut next_range = NextRange::with(found, period, direction);
        // No event outside the period is selected, so the stretch extends to the end of the bounds.
        match direction {
            Direction::Forward if next_range.bounds.last == period.last => {
                next_range.bounds.last = bounds.last;
            }
            Direction::Backward if next_range.bounds.after == period.after => {
                next_range.bounds.after = bounds.after;
            }
            _ => {}
        }
        Ok(next_range)
    }
}
