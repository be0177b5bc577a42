//! What the journal hands out and takes back: events with their place in the queue, and what has
//! become of them.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::OwnedSemaphorePermit;

use crate::webhook::routing::Route;
use crate::webhook::{Event, Reason};

/// Order of receipt: a later event has a larger one, and none is ever used again.
pub type Seq = i64;

/// A route's number in the journal.
pub type RouteId = i64;

/// An unsettled event.
#[derive(Debug, Clone)]
pub struct Held {
    /// Its place in the order of receipt.
    pub seq: Seq,
    /// The event itself.
    pub event: Arc<Event>,
    /// Its routed status, or a reject's reason.
    pub label: Arc<str>,
    /// Where it goes.
    pub route: Arc<Route>,
    /// The same as a number.
    pub route_id: RouteId,
    /// Whether it is the first unsettled event of its session.
    pub is_head: bool,
    /// How often it was published and refused.
    pub attempts: u32,
    /// What made it a dead letter, if it has become one.
    pub condemned: Option<Condemned>,
    /// Whether its body still is what was received.
    pub is_damaged: bool,
    /// Whether its body is here; else only the journal has it.
    pub is_whole: bool,
}

/// Why an event has become a dead letter after it was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condemned {
    /// Why.
    pub reason: Reason,
    /// Why, for people.
    pub detail: String,
    /// Since when.
    pub at: Timestamp,
}

/// What the forwarder has to say about an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is done.
    Settle {
        /// Which.
        seq: Seq,
        /// Its label, for the totals.
        label: Arc<str>,
        /// How it ended.
        settlement: Settlement,
        /// How often it was published.
        attempts: u32,
    },
    /// It was refused; it waits, and its session behind it.
    Defer {
        /// Which.
        seq: Seq,
        /// When it is tried again, on the forwarder's clock; 0: at once.
        due_ms: u64,
        /// How often it was published.
        attempts: u32,
        /// Set when it becomes a dead letter: then it changes its route.
        condemned: Option<Condemned>,
    },
}

/// How an event ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// Confirmed and not returned.
    Published,
    /// Confirmed by the dead-letter exchange.
    DeadLettered(Reason),
}

impl Settlement {
    /// The name in the journal.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::DeadLettered(reason) => reason.as_str(),
        }
    }

    /// The settlement of that name; a name that is not known is none.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        if name == Self::Published.as_str() {
            return Some(Self::Published);
        }
        Reason::from_name(name).map(Self::DeadLettered)
    }

    /// Whether the journal has the only copy of the body, so that retention must spare it.
    #[must_use]
    pub fn is_kept(self) -> bool {
        self == Self::DeadLettered(Reason::TooLarge)
    }
}

/// A change that is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ack {
    /// The event is settled.
    Settled {
        /// Which.
        seq: Seq,
        /// The route of the event that now is its session's head.
        promoted: Option<RouteId>,
    },
    /// The event waits.
    Deferred {
        /// Which.
        seq: Seq,
        /// Its route, perhaps a new one.
        route_id: RouteId,
        /// Until when, on the forwarder's clock; 0: not at all.
        due_ms: u64,
    },
}

/// What one commit brought, for the forwarder; acks come before the fresh events.
#[derive(Debug, Default)]
pub struct Committed {
    /// Changes that are on the disk.
    pub acks: Vec<Ack>,
    /// Events that are new.
    pub fresh: Vec<Held>,
    /// Their bodies' share of the memory for bodies on their way.
    pub(super) memory: Option<OwnedSemaphorePermit>,
}
