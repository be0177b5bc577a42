//! Decides which events a fetch returns, before any of them is read.

use std::sync::Arc;

use rusqlite::Row;

use super::FetchRequest;
use crate::journal::interface::{DeadLetterCause, QueuedEvent, RouteId, Seq};
use crate::journal::stored::{Stored, Values, log_unknown};
use crate::journal::window::{BacklogWindow, SessionKey, Waiting};
use crate::webhook::routing::Route;

/// Followers of one session that are returned with its head, at most.
const FOLLOWERS_MAX: usize = 32;

/// The columns of `pending p` and `routes r` in the order that [`Planned::of_row`] expects.
macro_rules! columns {
    () => {
        "p.seq, p.label, p.route, r.exchange, r.routing_key, p.head, p.attempts, p.reason, \
         p.detail, p.at, p.bytes, p.source, p.session"
    };
}
pub(super) use columns;

/// A head and the events that follow it in the window.
pub(super) struct Chain {
    pub(super) events: Vec<Planned>,
    /// Source and session, if the session may have more events with rows in `pending`.
    pub(super) session: Option<SessionKey>,
}

/// A batch of one session whose events have not been read from `webhooks` yet.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) events: Vec<Planned>,
    pub(super) has_more: bool,
}

/// An event of a plan, before its fields and body are read.
pub(super) struct Planned {
    pub(super) seq: Seq,
    /// The length of the body.
    bytes: u64,
    routed_status: Arc<str>,
    route: Arc<Route>,
    route_id: RouteId,
    is_head: bool,
    attempts: u32,
    dead_letter_cause: Option<DeadLetterCause>,
    is_damaged: bool,
}

impl Chain {
    /// `None` if the event is not in the window. Contains one event more than wanted, to see
    /// whether the session has more.
    pub(super) fn of(window: &BacklogWindow, head: Seq, followers_max: usize) -> Option<Self> {
        let (source, first) = window.locate(head)?;
        let session = first.session.as_ref();
        let session =
            session.filter(|session| window.sessions_with_rows.may_contain(source, session));
        let planned = |(seq, waiting): (Seq, Waiting)| Planned {
            seq,
            bytes: waiting.bytes,
            routed_status: waiting.routed_status,
            route: waiting.route,
            route_id: waiting.route_id,
            is_head: seq == head,
            attempts: 0,
            dead_letter_cause: None,
            is_damaged: false,
        };
        let events = window.chain(head, followers_max + 2);
        Some(Self {
            events: events.into_iter().map(planned).collect(),
            session: session.map(|session| (Arc::clone(source), Arc::clone(session))),
        })
    }
}

impl Plan {
    /// Adds the next event of the session if it fits. Otherwise, the session has more.
    pub(super) fn add(&mut self, event: Planned, room: &mut BatchBudget) -> bool {
        let fits = room.takes(self.events.len(), event.bytes);
        if fits {
            room.fill(event.bytes);
            self.events.push(event);
        }
        self.has_more = !fits;
        fits
    }
}

/// The part of a request's limits that is not used yet.
pub(crate) struct BatchBudget {
    pub(crate) events: usize,
    pub(crate) bytes: u64,
    /// Followers per head, at most. The more heads there are, the fewer: events that are fetched
    /// together were then received together, and are stored next to each other.
    pub(crate) followers_max: usize,
    is_untouched: bool,
}

impl BatchBudget {
    pub(crate) fn of(request: &FetchRequest, heads: usize) -> Self {
        let share = request.events_max.div_ceil(heads.max(1));
        Self {
            events: request.events_max,
            bytes: request.bytes_max,
            followers_max: share.saturating_sub(1).min(FOLLOWERS_MAX),
            is_untouched: true,
        }
    }

    /// Whether another event fits, for a batch that already contains `events` events.
    pub(crate) fn takes(&self, events: usize, bytes: u64) -> bool {
        let is_fair = events <= self.followers_max;
        is_fair && self.events > 0 && (self.is_untouched || bytes <= self.bytes)
    }

    pub(crate) fn fill(&mut self, bytes: u64) {
        self.events = self.events.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.is_untouched = false;
    }
}

impl Planned {
    /// The event of a row that has the columns of [`columns`], and its session if it has one.
    pub(super) fn of_row(row: &Row<'_>) -> rusqlite::Result<(Self, Option<SessionKey>)> {
        let mut values = Values::of(row);
        let seq = row.get(0)?;
        // An unknown reason makes the event damaged. Without this, it would count as one that was
        // never dead-lettered.
        let dead_letter_cause = match values.reason(7, "reason")? {
            Some(reason) => Some(DeadLetterCause {
                reason,
                detail: values.text(8, "detail")?.unwrap_or_default(),
                at: values.timestamp(9, "at")?.unwrap_or_default(),
            }),
            None => None,
        };
        let source = values.needed_text(11, "source")?.into();
        let session = values.text(12, "session")?;
        let planned = Self {
            seq,
            bytes: values.number(10, "bytes")?.unwrap_or_default(),
            routed_status: values.needed_text(1, "label")?.into(),
            route: Arc::new(Route {
                exchange: values.needed_text(3, "exchange")?.into(),
                routing_key: values.needed_text(4, "routing_key")?.into(),
            }),
            route_id: row.get(2)?,
            is_head: row.get(5)?,
            attempts: values.number(6, "attempts")?.unwrap_or_default(),
            dead_letter_cause,
            is_damaged: values.unknown.is_some(),
        };
        log_unknown(seq, values.unknown);
        Ok((planned, session.map(|session| (source, session.into()))))
    }

    pub(super) fn held(self, stored: Stored) -> QueuedEvent {
        QueuedEvent {
            seq: self.seq,
            event: Arc::new(stored.event),
            routed_status: self.routed_status,
            route: self.route,
            route_id: self.route_id,
            is_head: self.is_head,
            attempts: self.attempts,
            dead_letter_cause: self.dead_letter_cause,
            is_damaged: self.is_damaged || stored.is_damaged,
            has_body: true,
        }
    }
}
