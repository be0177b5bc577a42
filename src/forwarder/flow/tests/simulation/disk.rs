//! The state on disk: what a transaction changes and what a snapshot shows. It keeps the real
//! [`BacklogWindow`], and follows `journal/store` and `journal/reader` without SQL.
//!
//! Each pending event is in the window, has a row in `pending`, or is in the tail, unread. `window`
//! moves events between these places, `take` reads them for the forwarder.

mod fetch;
mod window;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::coverage::{Coverage, Seen};
use super::events::{Fresh, ROUTES_MAX, STATUSES};
use super::random::Random;
use super::scenario::Scenario;
use crate::journal::{
    BacklogWindow, DeadLetterCause, QueuedEvent, RouteId, Seq, Transition, TransitionApplied,
    strip_body,
};
use crate::webhook::routing::Route;
pub(super) use window::WINDOW_AGE_MAX;

/// The routes of the statuses and of dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Routing {
    routes: [RouteId; STATUSES],
    pub(super) dead_letters: RouteId,
}

impl Routing {
    pub(super) fn first() -> Self {
        Self {
            routes: [0, 1, 2, 3],
            dead_letters: 7,
        }
    }

    pub(super) fn draw(random: &mut Random) -> Self {
        let last = ROUTES_MAX as u64 - 1;
        let mut route = |first: u64, end: u64| {
            RouteId::try_from(first + random.below(end - first)).expect("few")
        };
        Self {
            routes: std::array::from_fn(|_| route(0, last - 1)),
            dead_letters: route(last - 1, last + 1),
        }
    }

    fn of(&self, event: &Fresh, is_dead_letter: bool) -> RouteId {
        if is_dead_letter || event.session.is_none() {
            self.dead_letters
        } else {
            self.routes[event.status]
        }
    }
}

/// A row of `pending`, or the same about an event of the window.
#[derive(Clone, Default)]
pub(super) struct Row {
    session: Option<u64>,
    pub(super) route_id: RouteId,
    /// Whether it is the first event of its session outside the tail.
    pub(super) is_head: bool,
    pub(super) due_ms: u64,
    pub(super) attempts: u32,
    pub(super) dead_letter_cause: Option<DeadLetterCause>,
}

/// A row of `webhooks` with pending events.
struct Part {
    /// Number of all its events, including complete ones.
    events: usize,
    /// When it was appended or read.
    since: u64,
}

pub(super) struct Disk {
    pub(super) unsettled: BTreeMap<Seq, Fresh>,
    /// Rows of `webhooks`, by their first event.
    parts: BTreeMap<Seq, Part>,
    window: BacklogWindow,
    pub(super) window_max: usize,
    /// About how many events of the tail one commit reads.
    loaded_max: usize,
    rows: BTreeMap<Seq, Row>,
    /// The last event that is complete or has a row.
    touched: Seq,
    routing: Routing,
    names: Vec<Arc<Route>>,
    routed_status: Arc<str>,
    pub(super) last_seq: Seq,
    pub(super) coverage: Coverage,
}

impl Disk {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let name = |number: usize| {
            Arc::new(Route {
                exchange: "e".into(),
                routing_key: number.to_string().into(),
            })
        };
        Self {
            unsettled: BTreeMap::new(),
            parts: BTreeMap::new(),
            window: BacklogWindow::default(),
            window_max: scenario.window_max,
            loaded_max: scenario.loaded_max,
            rows: BTreeMap::new(),
            touched: 0,
            routing: Routing::first(),
            names: (0..ROUTES_MAX).map(name).collect(),
            routed_status: "created".into(),
            last_seq: 0,
            coverage: Coverage::default(),
        }
    }

    /// Appends events that share a row of `webhooks`. Returns those that are handed over: all that
    /// are not in the tail.
    pub(super) fn append(&mut self, part: &[Fresh], now: u64) -> Vec<QueuedEvent> {
        let first = self.last_seq + 1;
        if self.window.tail.is_none() && !self.has_room(part.len()) {
            self.window.tail = Some(first);
        }
        self.unsettled.extend((first..).zip(part.iter().cloned()));
        self.last_seq += Seq::try_from(part.len()).expect("few");
        let (events, since) = (part.len(), now);
        self.parts.insert(first, Part { events, since });
        if self.window.tail.is_some() {
            self.coverage.saw(Seen::LeftInTail);
            return Vec::new();
        }
        self.open(first);
        let handed_over = (first..=self.last_seq).map(|seq| self.place_fresh(first, seq));
        let handed_over = handed_over.collect();
        self.window.opened(first);
        handed_over
    }

    /// Places a new event. If the forwarder may not know an earlier event of its session, this one
    /// must not overtake it and is handed over without its body.
    fn place_fresh(&mut self, first: Seq, seq: Seq) -> QueuedEvent {
        let event = &self.unsettled[&seq].event;
        let is_known = event.session_id().is_none_or(|session| {
            let source = &event.envelope.source;
            self.window.is_announced(source, session)
        });
        let is_in_window = self.place(first, seq, true).is_some();
        let mut queued = QueuedEvent {
            // Only an event that is read back can be damaged.
            is_damaged: false,
            ..self.buffered(seq)
        };
        if !is_known || !is_in_window {
            self.coverage.saw(if is_in_window {
                Seen::FreshBehindLoaded
            } else {
                Seen::FreshBehindRow
            });
            strip_body(&mut queued);
        }
        queued
    }

    pub(super) fn change(&mut self, change: &Transition) -> TransitionApplied {
        match change {
            Transition::Complete { seq, .. } => self.settle(*seq),
            Transition::Reschedule {
                seq,
                due_ms,
                attempts,
                dead_letter_cause,
            } => {
                self.give_rows_from(*seq);
                let row = self.rows.get_mut(seq).expect("it is pending");
                assert!(row.is_head, "event {seq} is rescheduled and is not a head");
                (row.due_ms, row.attempts) = (*due_ms, *attempts);
                if dead_letter_cause.is_some() {
                    row.dead_letter_cause.clone_from(dead_letter_cause);
                    row.route_id = self.routing.dead_letters;
                }
                TransitionApplied::Rescheduled {
                    seq: *seq,
                    route_id: row.route_id,
                    due_ms: *due_ms,
                }
            }
        }
    }

    fn settle(&mut self, seq: Seq) -> TransitionApplied {
        let is_head = self.row(seq).is_some_and(|row| row.is_head);
        assert!(
            is_head,
            "event {seq} is completed before its session's head"
        );
        let gone = self.unsettled.remove(&seq).expect("it has a row");
        self.touched = self.touched.max(seq);
        self.leave_part(seq);
        let left = self.window.remove(seq);
        self.rows.remove(&seq);
        let promoted = left.and_then(|left| left.promoted).or_else(|| {
            let next = self.rows_of(gone.session).next()?;
            let next = self.rows.get_mut(&next)?;
            next.is_head = true;
            Some(next.route_id)
        });
        TransitionApplied::Completed { seq, promoted }
    }

    fn leave_part(&mut self, seq: Seq) {
        let part = self.parts.range(..=seq).next_back();
        let (&first, part) = part.expect("a pending event has a webhook");
        let mut seqs = (first..).take(part.events);
        if !seqs.any(|seq| self.unsettled.contains_key(&seq)) {
            self.parts.remove(&first);
        }
    }

    pub(super) fn reroute(&mut self, routing: Routing, now: u64) {
        self.routing = routing;
        for (seq, row) in &mut self.rows {
            let is_dead_letter = row.dead_letter_cause.is_some();
            row.route_id = routing.of(&self.unsettled[seq], is_dead_letter);
        }
        self.read_again(now);
    }

    /// Ends all delays, as a new process does first.
    pub(super) fn forget_delays(&mut self) {
        for row in self.rows.values_mut() {
            row.due_ms = 0;
        }
    }

    /// What the journal knows of an event; `None` if it is complete or in the tail.
    pub(super) fn row(&self, seq: Seq) -> Option<Row> {
        let Some((source, event)) = self.window.locate(seq) else {
            return self.rows.get(&seq).cloned();
        };
        let session = event.session.as_ref();
        let first = session.and_then(|session| self.window.first_of(source, session));
        Some(Row {
            route_id: event.route_id,
            is_head: first.is_none_or(|(first, _)| first == seq),
            ..Row::default()
        })
    }

    /// The events that the forwarder may fetch first: the heads of their sessions.
    pub(super) fn heads(&self) -> impl Iterator<Item = Row> {
        let of_window = self.window.all_heads().into_iter();
        let of_window = of_window.filter_map(move |seq| self.row(seq));
        let of_rows = self.rows.values().filter(|row| row.is_head);
        of_window.chain(of_rows.cloned())
    }

    pub(super) fn routes(&self) -> Vec<RouteId> {
        let routes: BTreeSet<_> = self.heads().map(|head| head.route_id).collect();
        routes.into_iter().collect()
    }

    /// The events of a session that have rows, in order.
    fn rows_of(&self, session: Option<u64>) -> impl Iterator<Item = Seq> {
        let is_of_session = move |row: &Row| session.is_some() && row.session == session;
        let rows = self.rows.iter().filter(move |(_, row)| is_of_session(row));
        rows.map(|(seq, _)| *seq)
    }

    fn buffered(&self, seq: Seq) -> QueuedEvent {
        let (fresh, row) = (&self.unsettled[&seq], self.row(seq).expect("it was read"));
        QueuedEvent {
            seq,
            event: fresh.event.clone(),
            routed_status: self.routed_status.clone(),
            route: self.name(row.route_id),
            route_id: row.route_id,
            is_head: row.is_head,
            attempts: row.attempts,
            dead_letter_cause: row.dead_letter_cause,
            is_damaged: fresh.is_damaged,
            has_body: true,
        }
    }

    fn name(&self, route_id: RouteId) -> Arc<Route> {
        self.names[usize::try_from(route_id).expect("routes are numbered from 0")].clone()
    }
}
