//! The message of a held event: its own, or the dead letter it has become.

use std::sync::Arc;

use crate::journal::Held;
use crate::webhook::message::{DeadLetter, Message};
use crate::webhook::routing::Routing;
use crate::webhook::{Content, Event};

/// The message as it goes out.
pub(super) fn message(held: &Held, routing: &Routing) -> Message {
    match letter(held, routing) {
        Some(letter) => Message::dead_letter(
            &held.event,
            Arc::clone(&held.route),
            &held.label,
            &letter,
            held.seq,
        ),
        None => Message::of(&held.event, Arc::clone(&held.route), &held.label),
    }
}

fn letter(held: &Held, routing: &Routing) -> Option<DeadLetter> {
    let event: &Event = &held.event;
    match (&held.condemned, &event.content) {
        (Some(condemned), _) => Some(DeadLetter {
            reason: condemned.reason,
            detail: condemned.detail.clone(),
            at: condemned.at,
            attempts: held.attempts,
            original: routing.original_route(event),
        }),
        (None, Content::Reject(reject)) => Some(DeadLetter {
            reason: reject.reason,
            detail: reject.detail.clone(),
            at: event.envelope.received_at,
            attempts: 0,
            original: routing.original_route(event),
        }),
        (None, Content::Session(_)) => None,
    }
}
