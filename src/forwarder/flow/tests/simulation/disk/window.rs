//! Which events enter the window, which leave it for rows of `pending`, and which are read back
//! after a failure or a crash.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;

use super::super::coverage::Seen;
use super::{Disk, Row};
use crate::journal::{OpenPart, RouteId, Seq, Waiting};

/// Milliseconds after which an event of the window gets a row, together with its followers. One
/// commit does this for `AGED_EVENTS_MAX` events.
pub(in super::super) const WINDOW_AGE_MAX: u64 = 300;
const AGED_EVENTS_MAX: usize = 2;

impl Disk {
    pub(super) fn has_room(&self, events: usize) -> bool {
        let length = self.window.length();
        length == 0 || length + events <= self.window_max
    }

    pub(in super::super) fn tail(&self) -> Option<Seq> {
        self.window.tail
    }

    /// Whether the next commit reads a part of the tail.
    pub(in super::super) fn can_load(&self) -> bool {
        let length = self.window.length();
        let is_short = length == 0 || length < self.window_max / 4 * 3;
        let next = self.tail().and_then(|tail| self.parts.get(&tail));
        is_short && next.is_some_and(|part| self.has_room(part.events))
    }

    /// When the oldest event of the window entered it.
    pub(in super::super) fn oldest(&self) -> Option<u64> {
        let (first, _) = self.window.oldest()?;
        Some(self.parts[&first].since)
    }

    /// Updates the window as every commit does at its end. Returns the routes with heads that were
    /// in the tail before.
    pub(in super::super) fn renew_window(
        &mut self,
        is_ageing: bool,
        now: u64,
    ) -> BTreeSet<RouteId> {
        if is_ageing {
            self.give_rows_to_aged(now);
        }
        let routes = self.load_tail(now);
        self.is_within_bounds();
        routes
    }

    fn is_within_bounds(&self) {
        let length = self.window.length();
        assert!(length <= self.window_max, "the window is too large");
    }

    fn give_rows_to_aged(&mut self, now: u64) {
        let old = self.parts.iter();
        let old = old.take_while(|(_, part)| part.since + WINDOW_AGE_MAX <= now);
        let aged: Vec<Seq> = old
            .flat_map(|(first, part)| (*first..).take(part.events))
            .filter(|seq| self.window.event(*seq).is_some())
            .take(AGED_EVENTS_MAX)
            .collect();
        for seq in aged {
            self.coverage.saw(Seen::Aged);
            self.give_rows_from(seq);
        }
    }

    /// Gives rows to an event of the window and to the later events of its session.
    pub(super) fn give_rows_from(&mut self, seq: Seq) {
        for left in self.window.remove_chain(seq) {
            let is_head = left.seq == seq;
            if !is_head {
                self.coverage.saw(Seen::RowOfFollower);
            }
            self.give_row(left.seq, left.event.route_id, is_head);
        }
    }

    fn give_row(&mut self, seq: Seq, route_id: RouteId, is_head: bool) {
        self.touched = self.touched.max(seq);
        let row = Row {
            session: self.unsettled[&seq].session,
            route_id,
            is_head,
            ..Row::default()
        };
        self.rows.insert(seq, row);
    }

    /// Reads a part of the tail if at least a quarter of the window is free: whole rows, in order.
    fn load_tail(&mut self, now: u64) -> BTreeSet<RouteId> {
        let mut routes = BTreeSet::new();
        if !self.can_load() {
            return routes;
        }
        let mut events = 0;
        while let Some(first) = self.tail()
            && events < self.loaded_max
            && self.has_room(self.parts[&first].events)
        {
            self.coverage.saw(Seen::Loaded);
            events += self.parts[&first].events;
            let rows = self.rows.len();
            routes.extend(self.read_part(first, now));
            if self.rows.len() > rows {
                self.coverage.saw(Seen::LoadedBehindRow);
            }
            self.window.tail = self.parts.range(first + 1..).next().map(|(next, _)| *next);
        }
        routes
    }

    /// Restores the window as after a transaction that was rolled back: it contains what it had
    /// before, and nothing that was not handed to the flow.
    pub(in super::super) fn roll_back(&mut self, now: u64) {
        let before = (self.tail(), self.window.length());
        self.read_back(self.tail(), now);
        let after = (self.tail(), self.window.length());
        assert_eq!(after, before, "window has changed");
    }

    /// Reads the window as a new process does, or one with new routes.
    pub(in super::super) fn read_again(&mut self, now: u64) {
        self.read_back(None, now);
        self.is_within_bounds();
    }

    /// Clears the window and reads it from the rows of `webhooks`, up to `end` and as far as there
    /// is room, but at least up to `touched`. The rest is the tail.
    fn read_back(&mut self, end: Option<Seq>, now: u64) {
        self.window = std::mem::take(&mut self.window).emptied();
        let parts: Vec<(Seq, usize)> = self
            .parts
            .iter()
            .map(|(first, part)| (*first, part.events))
            .collect();
        for (first, events) in parts {
            let is_over = end.is_some_and(|end| first >= end) || !self.has_room(events);
            if first > self.touched && is_over {
                self.window.tail = Some(first);
                break;
            }
            self.read_part(first, now);
        }
    }

    /// Begins a part in the window; `place` adds its events.
    pub(super) fn open(&mut self, first: Seq) {
        let pending = self.unsettled.range(first..).next();
        let (_, fresh) = pending.expect("a part has a pending event");
        let source = Arc::clone(&fresh.event.envelope.source);
        let events = self.parts[&first].events;
        let part = OpenPart::new(source, Timestamp::default(), 0, events);
        self.window.open(first, part);
    }

    /// Reads the pending events of a part that have no rows. Returns the routes with new heads.
    fn read_part(&mut self, first: Seq, now: u64) -> BTreeSet<RouteId> {
        let mut routes = BTreeSet::new();
        let part = self.parts.get_mut(&first).expect("it has pending events");
        part.since = now;
        let seqs = (first..).take(part.events);
        self.open(first);
        for seq in seqs {
            if !self.unsettled.contains_key(&seq) || self.rows.contains_key(&seq) {
                self.window.push(first, None);
            } else if self.place(first, seq, false) == Some(true) {
                routes.extend(self.row(seq).map(|row| row.route_id));
            }
        }
        self.window.opened(first);
        routes
    }

    /// Puts the next event of a part into the window, or gives it a row: if an earlier event of its
    /// session has one, or if the window is full because an earlier process had a larger one.
    /// Returns whether it is the head of its session; `None` if it has a row.
    pub(super) fn place(&mut self, first: Seq, seq: Seq, is_announced: bool) -> Option<bool> {
        let fresh = &self.unsettled[&seq];
        let session = fresh.event.session_id().cloned();
        let route_id = self.routing.of(fresh, false);
        let is_behind_row = self
            .rows_of(fresh.session)
            .next()
            .is_some_and(|row| row < seq);
        let is_full = self.window.length() >= self.window_max;
        if is_behind_row || is_full {
            let source = &fresh.event.envelope.source;
            let before = session.and_then(|session| self.window.first_of(source, &session));
            self.window.push(first, None);
            self.give_row(seq, route_id, !is_behind_row && before.is_none());
            if !is_behind_row {
                self.coverage.saw(Seen::WindowShrunk);
            }
            return None;
        }
        let route = (route_id, self.name(route_id));
        let mut waiting = Waiting::new(session, self.routed_status.clone(), route, 0);
        waiting.is_announced = is_announced;
        Some(self.window.push(first, Some(waiting)))
    }
}
