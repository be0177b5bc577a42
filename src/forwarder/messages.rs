//! Builds the message of a buffered event: its own, or its dead letter.

use std::sync::Arc;

use crate::journal::QueuedEvent;
use crate::webhook::message::{DeadLetter, Message};
use crate::webhook::routing::Routing;
use crate::webhook::{Content, DeadLetterReason};

/// The message to be published for an event.
pub(super) fn message(queued: &QueuedEvent, routing: &Routing) -> Message {
    match letter(queued, routing) {
        Some(letter) => Message::dead_letter(
            &queued.event,
            Arc::clone(&queued.route),
            &queued.routed_status,
            &letter,
            queued.seq,
        ),
        None => Message::of(
            &queued.event,
            Arc::clone(&queued.route),
            &queued.routed_status,
        ),
    }
}

fn letter(queued: &QueuedEvent, routing: &Routing) -> Option<DeadLetter> {
    let (reason, detail) = cause(queued)?;
    let decided = queued.dead_letter_cause.as_ref();
    Some(DeadLetter {
        reason,
        detail: detail.to_owned(),
        at: decided.map_or(queued.event.envelope.received_at, |cause| cause.at),
        attempts: decided.map_or(0, |_| queued.attempts),
        original: routing.original_route(&queued.event),
    })
}

/// Reason and detail of an event that goes to the dead-letter exchange; `None` for one that goes to
/// its own route.
pub(super) fn cause(queued: &QueuedEvent) -> Option<(DeadLetterReason, &str)> {
    match (&queued.dead_letter_cause, &queued.event.content) {
        (Some(cause), _) => Some((cause.reason, &cause.detail)),
        (None, Content::Reject(reject)) => Some((reject.reason, &reject.detail)),
        (None, Content::Session(_)) => None,
    }
}
