//! What the journal exchanges with the forwarder: pending events, changes of their state, and the
//! results of commits.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::OwnedSemaphorePermit;

use crate::webhook::routing::Route;
use crate::webhook::{DeadLetterReason, Event};

/// The number of an event, in order of receipt: later events have larger numbers, and no number is
/// reused.
pub type Seq = i64;

/// The number of a route in the table `routes`.
pub type RouteId = i64;

/// A pending event.
#[derive(Debug, Clone)]
pub struct QueuedEvent {
    /// Its number in the order of receipt.
    pub seq: Seq,
    /// The event itself.
    pub event: Arc<Event>,
    /// The status that it is routed by, or the reason of a reject.
    pub routed_status: Arc<str>,
    /// The exchange and the routing key that it is published with.
    pub route: Arc<Route>,
    /// The number of that route.
    pub route_id: RouteId,
    /// Whether it is the head of its session: the first pending event.
    pub is_head: bool,
    /// The number of publish attempts that were rejected.
    pub attempts: u32,
    /// Why it is to be dead-lettered; `None` for an ordinary event.
    pub dead_letter_cause: Option<DeadLetterCause>,
    /// Whether it differs from what was received: its row holds an unknown value or it no longer
    /// matches its `message_id`.
    pub is_damaged: bool,
    /// Whether `event` contains the body; if not, it must be fetched from the journal.
    pub has_body: bool,
}

/// Why an event is dead-lettered after it was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterCause {
    /// The reason, as in the header of the dead letter.
    pub reason: DeadLetterReason,
    /// The reason as text for operators.
    pub detail: String,
    /// When it was decided.
    pub at: Timestamp,
}

/// A change of an event's state, decided by the forwarder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transition {
    /// Completes the event.
    Complete {
        /// The number of the event.
        seq: Seq,
        /// The event's label, for the totals.
        routed_status: Arc<str>,
        /// The final state.
        final_state: FinalState,
        /// The number of publish attempts so far.
        attempts: u32,
    },
    /// Reschedules an event that was rejected; the later events of its session wait behind it.
    Reschedule {
        /// The number of the event.
        seq: Seq,
        /// When it is due again, in milliseconds of the forwarder's clock; 0: at once.
        due_ms: u64,
        /// The number of publish attempts so far.
        attempts: u32,
        /// Set if the event becomes a dead letter; its route changes to the dead-letter exchange.
        dead_letter_cause: Option<DeadLetterCause>,
    },
}

/// The final state of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinalState {
    /// Confirmed by the broker and not returned.
    Published,
    /// Confirmed as a message of the dead-letter exchange.
    DeadLettered(DeadLetterReason),
}

impl FinalState {
    /// The name in the column `outcome`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::DeadLettered(reason) => reason.as_str(),
        }
    }

    /// The final state with that name; `None` if the name is unknown.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        if name == Self::Published.as_str() {
            return Some(Self::Published);
        }
        DeadLetterReason::from_name(name).map(Self::DeadLettered)
    }

    /// Whether the journal holds the only copy of the body, so that retention must keep it.
    #[must_use]
    pub fn is_exempt(self) -> bool {
        self == Self::DeadLettered(DeadLetterReason::TooLarge)
    }
}

/// A change that was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransitionApplied {
    /// The event is completed.
    Completed {
        /// The number of the event.
        seq: Seq,
        /// The route of the new head of its session; `None` if the session has no other pending
        /// event.
        promoted: Option<RouteId>,
    },
    /// The event is rescheduled.
    Rescheduled {
        /// The number of the event.
        seq: Seq,
        /// Its route now, which differs from before if it becomes a dead letter.
        route_id: RouteId,
        /// When it is due, in milliseconds of the forwarder's clock; 0: at once.
        due_ms: u64,
    },
}

/// The results of one commit, for the forwarder. It must apply `applied` before `fresh`.
#[derive(Debug, Default)]
pub struct Committed {
    /// The changes that were committed.
    pub applied: Vec<TransitionApplied>,
    /// The new events, in order.
    pub fresh: Vec<QueuedEvent>,
    /// Routes with heads that were not handed over and must be fetched.
    pub behind: Vec<RouteId>,
    /// Reserves the memory for the bodies in `fresh` until this is dropped.
    pub(super) memory: Option<OwnedSemaphorePermit>,
}
