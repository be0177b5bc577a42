//! Splits a verified body into events: one per element of its array, each with the element's own
//! bytes. Never re-serialises, never recurses, and reads every byte a fixed number of times,
//! whatever the sender has sent. Knows only what routing needs of an element.

pub mod diagnosis;
mod elements;
mod fields;
mod kind;
mod members;
pub(super) mod strings;
mod text;
mod walk;

use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use self::elements::{NoElements, elements};
use super::signature::Verified;
use super::{Content, DeadLetterReason, Envelope, Event, Reject, Webhook, identity};
use crate::memory;

/// Up to this size, elements always share the memory of their body. A larger body is not kept in
/// memory for an element that is less than half of it: the element is copied. An event stays in
/// memory until it is published and counts with its own length only, so 256 events in flight could
/// otherwise keep 256 whole requests in memory.
const SHARED_BYTES_MAX: usize = 16 << 10;

/// From this size on, elements share the memory of their body, however small each is, if together
/// they are at least half of it: events of such a webhook are not kept in memory.
const SHARED_BYTES_MIN: usize = 2 * memory::LARGE_BYTES;

/// The array has more elements than a webhook may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {sessions_max} sessions in one webhook")]
pub struct TooManySessions {
    /// The maximum number of sessions in one webhook.
    pub sessions_max: usize,
}

/// Splits a body into events, in the order of its array. A bare object is an array of one. A body
/// that is not JSON, or neither array nor object, becomes one event that contains all of it
/// ([`Webhook::malformed`]).
///
/// # Errors
/// More than `sessions_max` elements; what follows them is not examined.
pub fn split(
    verified: Verified<Bytes>,
    envelope: Envelope,
    sessions_max: usize,
) -> Result<Webhook, TooManySessions> {
    let body = verified.into_inner();
    let envelope = Arc::new(envelope);
    let events = match elements(&body, sessions_max) {
        Ok(elements) => {
            let is_shared = is_shared(&body, &elements);
            let events = (0..).zip(elements).map(|(index, text)| {
                let bytes = own(&body, text, is_shared);
                event(&envelope, index, content(text), bytes)
            });
            events.collect()
        }
        Err(NoElements::TooMany) => return Err(TooManySessions { sessions_max }),
        Err(NoElements::Malformed(detail)) => {
            vec![event(
                &envelope,
                0,
                reject(DeadLetterReason::Malformed, detail),
                body,
            )]
        }
    };
    Ok(Webhook { envelope, events })
}

fn content(element: &str) -> Content {
    fields::read(element).map_or_else(
        |detail| reject(DeadLetterReason::Invalid, detail),
        Content::Session,
    )
}

fn reject(reason: DeadLetterReason, detail: String) -> Content {
    Content::Reject(Reject { reason, detail })
}

fn event(envelope: &Arc<Envelope>, index: u32, content: Content, body: Bytes) -> Arc<Event> {
    let mut event = Event {
        envelope: Arc::clone(envelope),
        index,
        message_id: Uuid::nil(),
        content,
        body,
    };
    event.message_id = identity::of(&event);
    Arc::new(event)
}

fn is_shared(body: &Bytes, elements: &[&str]) -> bool {
    let bytes: usize = elements.iter().map(|element| element.len()).sum();
    body.len() <= SHARED_BYTES_MAX || body.len() >= SHARED_BYTES_MIN && bytes >= body.len() / 2
}

/// The element's bytes: a slice of the body or a copy.
fn own(body: &Bytes, element: &str, is_shared: bool) -> Bytes {
    if is_shared || element.len() >= body.len() / 2 {
        body.slice_ref(element.as_bytes())
    } else {
        memory::copy(element.as_bytes())
    }
}

#[cfg(test)]
mod tests;
