//! Chooses the part of the journal that a search reads next, and the rows in it. For some states
//! the journal itself can tell which rows to read; for other conditions the archive does.

use std::collections::BTreeSet;

use rusqlite::Connection;

use super::file::numbers;
use super::selection::{Bounds, EventState};
use super::{SCANNED_MAX, SCANNED_ROWS, Selection};
use crate::journal::interface::Seq;
use crate::journal::totals::{self, Name};

/// The order in which a search reads events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Forward,
    Backward,
}

/// The part of the journal to read next. No event between the current position of the search and
/// this part is selected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NextRange {
    /// The range of events to search; the rows may reach beyond it.
    pub(super) bounds: Bounds,
    pub(super) rows: Rows,
}

/// The rows of `webhooks` to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rows {
    All,
    /// The rows that contain one of these numbers, in the order of the search.
    With(Vec<Seq>),
}

impl NextRange {
    pub(super) fn all(bounds: Bounds) -> Self {
        Self {
            bounds,
            rows: Rows::All,
        }
    }

    /// Creates a stretch from the numbers that were found, at most `SCANNED_MAX`. If there are that
    /// many, the stretch ends at the last one. A forward stretch ends before it, because its row
    /// begins with that number and may reach further; the row is left to the next stretch.
    pub(super) fn with(mut found: Vec<Seq>, mut bounds: Bounds, direction: Direction) -> Self {
        if found.len() >= SCANNED_MAX
            && let Some(last) = found.last().copied()
        {
            match direction {
                Direction::Forward => {
                    found.pop();
                    bounds.last = last - 1;
                }
                Direction::Backward => bounds.after = last - 1,
            }
        }
        Self {
            bounds,
            rows: Rows::With(found),
        }
    }

    /// Creates a stretch from a source that knows all events up to a number and none after it.
    /// Beyond that number, the stretch contains all rows.
    pub(super) fn known_until(
        until: Seq,
        bounds: Bounds,
        direction: Direction,
        list: impl FnOnce(Bounds) -> rusqlite::Result<Self>,
    ) -> rusqlite::Result<Self> {
        let Bounds { after, last } = bounds;
        match direction {
            Direction::Backward if last > until => Ok(Self::all(Bounds {
                after: after.max(until),
                last,
            })),
            Direction::Forward if after >= until => Ok(Self::all(bounds)),
            _ => list(Bounds {
                after,
                last: last.min(until),
            }),
        }
    }

    /// Returns whichever of two stretches leaves less to read.
    fn or(self, other: Self, direction: Direction) -> Self {
        let further = match direction {
            Direction::Forward => other.bounds.last.cmp(&self.bounds.last),
            Direction::Backward => self.bounds.after.cmp(&other.bounds.after),
        };
        let is_other = match (&self.rows, &other.rows) {
            (_, Rows::All) => false,
            (Rows::All, Rows::With(_)) => true,
            (Rows::With(own), Rows::With(others)) => {
                further.then(own.len().cmp(&others.len())).is_gt()
            }
        };
        if is_other { other } else { self }
    }

    /// Returns this stretch, or a shorter one from the selected numbers or from the journal's
    /// tables of states.
    pub(super) fn or_shorter(
        self,
        journal: &Connection,
        selection: &Selection,
        bounds: Bounds,
        direction: Direction,
    ) -> rusqlite::Result<Self> {
        let within = match self.rows {
            Rows::All => self.bounds,
            Rows::With(_) => bounds,
        };
        let of_seqs = match &selection.seqs {
            Some(seqs) => with_seqs(seqs, within, direction),
            None => Self::all(within),
        };
        let of_state = with_state(journal, selection.state, within, direction)?;
        Ok(self.or(of_seqs, direction).or(of_state, direction))
    }
}

fn with_seqs(seqs: &BTreeSet<Seq>, bounds: Bounds, direction: Direction) -> NextRange {
    if bounds.after >= bounds.last {
        return NextRange::with(Vec::new(), bounds, direction);
    }
    let within = seqs.range(bounds.after + 1..=bounds.last).copied();
    let found = match direction {
        Direction::Forward => within.take(SCANNED_MAX).collect(),
        Direction::Backward => within.rev().take(SCANNED_MAX).collect(),
    };
    NextRange::with(found, bounds, direction)
}

fn with_state(
    journal: &Connection,
    state: Option<EventState>,
    bounds: Bounds,
    direction: Direction,
) -> rusqlite::Result<NextRange> {
    match state {
        Some(EventState::DeadLettered | EventState::Damaged) => {
            let unusual = "SELECT seq FROM outcomes
                WHERE seq > ?1 AND seq <= ?2 AND outcome <> 'published'";
            list(journal, unusual, bounds, direction)
        }
        Some(EventState::Pending) => {
            let window_first = totals::read(journal, Name::WindowFirst)?;
            let until = window_first.unwrap_or_default() - 1;
            NextRange::known_until(until, bounds, direction, |bounds| {
                let pending = "SELECT seq FROM pending WHERE seq > ?1 AND seq <= ?2";
                list(journal, pending, bounds, direction)
            })
        }
        Some(EventState::Published) | None => Ok(NextRange::all(bounds)),
    }
}

fn list(
    journal: &Connection,
    select: &str,
    bounds: Bounds,
    direction: Direction,
) -> rusqlite::Result<NextRange> {
    let order = direction.order();
    let select = format!("{select} ORDER BY seq {order} LIMIT ?3");
    let found = numbers(journal, &select, (bounds.after, bounds.last, SCANNED_ROWS))?;
    Ok(NextRange::with(found, bounds, direction))
}

impl Direction {
    pub(super) fn order(self) -> &'static str {
        match self {
            Self::Forward => "ASC",
            Self::Backward => "DESC",
        }
    }
}
