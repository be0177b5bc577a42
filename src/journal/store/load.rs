//! Reads the window from the database: events that are neither in `pending` nor in `completed`, as
//! far as there is room.

use std::collections::BTreeSet;
use std::sync::Arc;

use rusqlite::OptionalExtension;

use super::{Name, Store};
use crate::journal::completed::{self, Runs, contains, joined};
use crate::journal::disk_size;
use crate::journal::interface::{RouteId, Seq};
use crate::journal::stored::{PART_EVENTS_MAX, PART_REACH, Part, columns};
use crate::journal::window::{BacklogWindow, OpenPart};

const PARTS_SINCE: &str = concat!(
    "SELECT ",
    columns!(bodies: "NULL"),
    " FROM webhooks w WHERE w.first >= ?1 ORDER BY w.first"
);

/// Events that are read per query when the window is loaded; the last row is read whole.
const READ_EVENTS_MAX: usize = 1000;

/// The last event that is completed or has a row in `pending`.
const TOUCHED: &str = "SELECT max(coalesce((SELECT max(last) FROM completed), 0),
       coalesce((SELECT max(seq) FROM pending), 0))";

/// The state of the events that are read.
struct Known {
    completed: Runs,
    pending: BTreeSet<Seq>,
}

/// The bytes of the closed webhooks that are listed in `completed`.
const RETAINED: &str = "SELECT coalesce(sum(closed.value ->> 2), 0) FROM completed, json_each(completed.closed) AS closed";

impl Store {
    /// Fills the window up to its tail, if it has one: after a transaction that was rolled back, it
    /// contains what it contained before.
    pub(super) fn load_window(&mut self) -> rusqlite::Result<()> {
        let tail = self.window.tail;
        self.window = std::mem::take(&mut self.window).emptied();
        let result = self.load_window_before(tail.unwrap_or(Seq::MAX));
        if result.is_err() {
            self.window.tail = tail;
        }
        result
    }

    fn load_window_before(&mut self, tail: Seq) -> rusqlite::Result<()> {
        let first = self.counters.get(Name::WindowFirst);
        let known = self.known_since(first)?;
        let touched: Seq = self.database.query_row(TOUCHED, [], |row| row.get(0))?;
        let reach = first.saturating_sub(PART_REACH);
        let mut next = Some(reach);
        while let Some(from) = next {
            let parts = self.parts_since(from, READ_EVENTS_MAX)?;
            // Not the last event plus one: a damaged row may claim no events, or those of its
            // neighbours.
            next = parts.last().map(|part| part.first + 1);
            for part in parts {
                let is_touched = part.first <= touched;
                if part.first >= tail || !is_touched && !self.has_room(part.events as usize) {
                    self.window.tail = Some(part.first);
                    return Ok(());
                }
                self.load_part(&part, &known, is_touched)?;
            }
        }
        Ok(())
    }

    /// Whether the window has room for this many events. An empty window accepts any row.
    pub(super) fn has_room(&self, events: usize) -> bool {
        let length = self.window.length();
        length == 0 || length + events <= self.window_events_max
    }

    /// Whether a part of the tail should be read now: a quarter of the window is free.
    pub(super) fn is_short_of_events(&self, window: &BacklogWindow) -> bool {
        let length = window.length();
        window.tail.is_some() && (length == 0 || length < self.window_events_max / 4 * 3)
    }

    /// Reads about `events_max` events of the tail, in whole rows, if a quarter of the window is
    /// free. Returns the routes with new heads.
    pub(super) fn load_tail(&mut self, events_max: usize) -> rusqlite::Result<BTreeSet<RouteId>> {
        let mut routes = BTreeSet::new();
        let Some(tail) = self.window.tail else {
            return Ok(routes);
        };
        if !self.is_short_of_events(&self.window) {
            return Ok(routes);
        }
        // The tail may contain a dead letter that was copied from a damaged database.
        let known = self.known_since(tail)?;
        let mut next = tail;
        for part in self.parts_since(tail, events_max)? {
            if !self.has_room(part.events as usize) {
                break;
            }
            routes.extend(self.load_part(&part, &known, false)?);
            next = part.first + 1;
        }
        self.window.tail = self
            .database
            .prepare_cached("SELECT first FROM webhooks WHERE first >= ?1 ORDER BY first LIMIT 1")?
            .query_row([next], |row| row.get(0))
            .optional()?;
        Ok(routes)
    }

    fn parts_since(&self, first: Seq, events_max: usize) -> rusqlite::Result<Vec<Part>> {
        let mut statement = self.database.prepare_cached(PARTS_SINCE)?;
        let mut events = 0;
        let mut rows = statement.query([first])?;
        let mut parts = Vec::new();
        while events < events_max
            && parts.len() < PART_EVENTS_MAX
            && let Some(row) = rows.next()?
        {
            let part = Part::read(row)?;
            events += part.events as usize;
            parts.push(part);
        }
        Ok(parts)
    }

    /// Adds the pending events of a row; returns the routes with new heads in the window.
    /// `is_touched` says whether some of its events may be completed or have rows.
    fn load_part(
        &mut self,
        part: &Part,
        known: &Known,
        is_touched: bool,
    ) -> rusqlite::Result<BTreeSet<RouteId>> {
        let mut routes = BTreeSet::new();
        let is_completed = |seq: Seq| contains(&known.completed, seq);
        if part.seqs().all(is_completed) {
            return Ok(routes);
        }
        let envelope = &part.envelope;
        let bytes = disk_size::of_part(part.size);
        let source = Arc::clone(&envelope.source);
        let mut open = OpenPart::new(source, envelope.received_at, bytes, part.events as usize);
        open.has_rows = known.pending.range(part.seqs()).next().is_some();
        // Whether a row has outcomes is not cheap to find out here; it is queried when the row is
        // closed.
        open.has_outcomes = is_touched;
        self.window.open(part.first, open);
        for seq in part.seqs() {
            if is_completed(seq) || known.pending.contains(&seq) {
                self.window.push(part.first, None);
            } else {
                routes.extend(self.load_event(part, seq, is_touched)?);
            }
        }
        self.window.opened(part.first);
        Ok(routes)
    }

    /// Adds an event to the window, or gives it a row in `pending`. Returns its route if it is a
    /// new head in the window.
    fn load_event(
        &mut self,
        part: &Part,
        seq: Seq,
        is_touched: bool,
    ) -> rusqlite::Result<Option<RouteId>> {
        let event = part.event_without_body(seq);
        let source = &part.envelope.source;
        let routed_status = Arc::from(self.routing.routed_status(&event));
        let waiting = self.waiting(&event, routed_status, part.length(seq))?;
        let is_behind_row = match &waiting.session {
            Some(session) => {
                let first = self.first_pending(source, session)?;
                first.is_some_and(|(first, _)| first < seq)
            }
            None => false,
        };
        // The window never had that many events: completions were lost with a damaged database.
        let is_full = is_touched && self.window.length() >= self.window_events_max;
        if !is_behind_row && !is_full {
            let route_id = waiting.route_id;
            let is_head = self.window.push(part.first, Some(waiting));
            return Ok(is_head.then_some(route_id));
        }
        let is_behind = |session| self.window.first_of(source, session).is_some();
        let is_head = !is_behind_row && !waiting.session.as_ref().is_some_and(is_behind);
        self.window.push(part.first, None);
        self.insert_pending(seq, source, &waiting, is_head)?;
        Ok(None)
    }

    /// The state of the events from a number on. All events before it are completed or have rows.
    fn known_since(&self, first: Seq) -> rusqlite::Result<Known> {
        let mut completed = completed::runs_since(&self.database, first)?;
        completed.push((Seq::MIN, first - 1));
        let pending = self
            .database
            .prepare_cached("SELECT seq FROM pending WHERE seq >= ?1")?
            .query_map([first], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        Ok(Known {
            completed: joined(completed),
            pending,
        })
    }

    /// Counts the rows if a counter is missing, because it was damaged or the journal was migrated.
    pub(super) fn count_rows(&mut self) -> rusqlite::Result<()> {
        let counted = [Name::BacklogEvents, Name::BacklogBytes, Name::RetainedBytes];
        if counted.iter().all(|name| self.counters.is_known(*name)) {
            return Ok(());
        }
        let tail = self.window.tail.unwrap_or(Seq::MAX);
        let rows = self.number("SELECT count(*) FROM pending")?;
        let unread: i64 = self.database.query_row(
            "SELECT coalesce(sum(events), 0) FROM webhooks WHERE first >= ?1",
            [tail],
            |row| row.get(0),
        )?;
        let mut bytes = rows * disk_size::PENDING_BYTES + disk_size::signed(self.window.bytes());
        let mut statement = self.database.prepare(
            "SELECT first, octet_length(fields) + octet_length(bodies) FROM webhooks
             WHERE first >= ?1
                OR EXISTS (SELECT 1 FROM pending WHERE seq BETWEEN first AND first + events - 1)",
        )?;
        let mut parts = statement.query([tail])?;
        while let Some(part) = parts.next()? {
            if self.window.part_mut(part.get(0)?).is_none() {
                let size: i64 = part.get(1)?;
                bytes += disk_size::signed(disk_size::of_part(size.unsigned_abs()));
            }
        }
        let retained = self.number(RETAINED)?;
        let in_window = disk_size::signed(self.window.length() as u64);
        for (name, value) in counted
            .into_iter()
            .zip([rows + in_window + unread, bytes, retained])
        {
            self.counters.set(name, value);
        }
        Ok(())
    }

    fn number(&self, statement: &str) -> rusqlite::Result<i64> {
        self.database.query_row(statement, [], |row| row.get(0))
    }
}
