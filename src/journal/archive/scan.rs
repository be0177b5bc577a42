//! The rows of `webhooks` that a search reads in one transaction.

use rusqlite::{Connection, OptionalExtension};

use super::next_range::{Direction, NextRange, Rows};
use super::selection::Bounds;
use crate::journal::interface::Seq;
use crate::journal::stored::{PART_REACH, Part, columns};

macro_rules! select {
    ($behind:literal) => {
        concat!("SELECT ", columns!(bodies: "NULL"), " FROM webhooks w WHERE ", $behind)
    };
}

const NEXT: &str = select!("w.first >= ?1 AND w.first <= ?2 ORDER BY w.first");
const PREVIOUS: &str = select!("w.first >= ?1 AND w.first <= ?2 ORDER BY w.first DESC");
const CONTAINING: &str = select!("w.first <= ?1 ORDER BY w.first DESC LIMIT 1");

/// Rows of `webhooks`, in order, without bodies.
pub(super) struct Scan {
    parts: Vec<Part>,
    /// The range of events to search; the rows may reach beyond it.
    bounds: Bounds,
    /// Where the search continues: after this number if it goes forward, up to and including it if
    /// backward. `None` at the end.
    pub(super) rest: Option<Seq>,
}

impl Scan {
    /// Reads the rows of a stretch within bounds, up to about `events_max` events.
    pub(super) fn of(
        journal: &Connection,
        next_range: &NextRange,
        bounds: Bounds,
        direction: Direction,
        events_max: usize,
    ) -> rusqlite::Result<Self> {
        let mut scan = Self {
            parts: Vec::new(),
            bounds: next_range.bounds,
            rest: None,
        };
        let is_cut = match &next_range.rows {
            Rows::All => scan.read_all(journal, direction, events_max)?,
            Rows::With(seqs) => scan.read_with(journal, seqs, events_max)?,
        };
        scan.rest = match (direction, scan.parts.last().filter(|_| is_cut)) {
            (Direction::Forward, Some(part)) => Some(part.last()),
            (Direction::Backward, Some(part)) => Some(part.first - 1),
            (Direction::Forward, None) => {
                Some(next_range.bounds.last).filter(|reached| *reached < bounds.last)
            }
            (Direction::Backward, None) => {
                Some(next_range.bounds.after).filter(|reached| *reached > bounds.after)
            }
        };
        scan.parts.sort_unstable_by_key(|part| part.first);
        Ok(scan)
    }

    /// The row and number of every event within the bounds.
    pub(super) fn events(&self) -> impl Iterator<Item = (&Part, Seq)> {
        let meant = self.bounds.after + 1..=self.bounds.last;
        let of_part = |part| Part::seqs(part).map(move |seq| (part, seq));
        self.parts
            .iter()
            .flat_map(of_part)
            .filter(move |(_, seq)| meant.contains(seq))
    }

    /// Reads all rows of the bounds. Returns whether there are more.
    fn read_all(
        &mut self,
        journal: &Connection,
        direction: Direction,
        events_max: usize,
    ) -> rusqlite::Result<bool> {
        let mut statement = journal.prepare_cached(match direction {
            Direction::Forward => NEXT,
            Direction::Backward => PREVIOUS,
        })?;
        let reach = self.bounds.after.saturating_sub(PART_REACH);
        let mut rows = statement.query((reach, self.bounds.last))?;
        let mut events = 0;
        while let Some(row) = rows.next()? {
            if events >= events_max {
                return Ok(true);
            }
            events += self.add(Part::read(row)?);
        }
        Ok(false)
    }

    /// Reads the rows that contain these numbers. Returns whether there are more.
    fn read_with(
        &mut self,
        journal: &Connection,
        seqs: &[Seq],
        events_max: usize,
    ) -> rusqlite::Result<bool> {
        let mut statement = journal.prepare_cached(CONTAINING)?;
        let mut events = 0;
        for seq in seqs {
            let has = |part: &Part| part.seqs().contains(seq);
            if self.parts.last().is_some_and(has) {
                continue;
            }
            if events >= events_max {
                return Ok(true);
            }
            let part = statement.query_row([seq], Part::read).optional()?;
            if let Some(part) = part.filter(has) {
                events += self.add(part);
            }
        }
        Ok(false)
    }

    /// Adds a row, unless it ends before the bounds. Returns how many events were added.
    fn add(&mut self, part: Part) -> usize {
        if part.last() <= self.bounds.after {
            return 0;
        }
        let events = part.events as usize;
        self.parts.push(part);
        events
    }
}
