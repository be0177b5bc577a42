//! Cuts a verified body into events: one per element of its array, each with the element's own
//! bytes. Never re-serialises, never recurses, and looks at every byte a fixed number of times,
//! whatever the sender has sent. Knows what routing needs of an element and nothing else of it.

mod elements;
mod fields;
mod kind;
mod members;
pub mod mistake;
mod text;
mod walk;

use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use self::elements::{Refusal, elements};
use super::signature::Verified;
use super::{Content, Envelope, Event, Reason, Reject, Webhook, identity};
use crate::memory;

/// A larger body is not kept in memory for the sake of an element that is less than half of it:
/// the element is copied. An event lives until it is published and counts with its own length
/// only, so 256 events in flight could otherwise hold 256 whole requests.
const SHARED_BYTES_MAX: usize = 16 << 10;

/// The elements of a body are shared with it although each is a small part of it if they are at
/// least half of it together and it is so long: nobody keeps events of such a webhook in memory.
const SHARED_BYTES_MIN: usize = 2 * memory::LARGE_BYTES;

/// The array has more elements than a webhook may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {sessions_max} sessions in one webhook")]
pub struct TooManySessions {
    /// The limit.
    pub sessions_max: usize,
}

/// Cuts a body into events, in the order of its array. A bare object is an array of one. A body
/// that is not JSON, or neither array nor object, becomes one event that holds all of it
/// ([`Webhook::malformed`]).
///
/// # Errors
/// More than `sessions_max` elements; what follows them is not looked at.
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
        Err(Refusal::TooMany) => return Err(TooManySessions { sessions_max }),
        Err(Refusal::Malformed(detail)) => {
            vec![event(&envelope, 0, reject(Reason::Malformed, detail), body)]
        }
    };
    Ok(Webhook { envelope, events })
}

fn content(element: &str) -> Content {
    fields::read(element).map_or_else(|detail| reject(Reason::Invalid, detail), Content::Session)
}

fn reject(reason: Reason, detail: String) -> Content {
    Content::Reject(Reject { reason, detail })
}

fn event(envelope: &Arc<Envelope>, index: u32, content: Content, body: Bytes) -> Event {
    let mut event = Event {
        envelope: Arc::clone(envelope),
        index,
        message_id: Uuid::nil(),
        content,
        body,
    };
    event.message_id = identity::of(&event);
    event
}

fn is_shared(body: &Bytes, elements: &[&str]) -> bool {
    let bytes: usize = elements.iter().map(|element| element.len()).sum();
    body.len() <= SHARED_BYTES_MAX || body.len() >= SHARED_BYTES_MIN && bytes >= body.len() / 2
}

/// The element's bytes, shared with the body or not.
fn own(body: &Bytes, element: &str, is_shared: bool) -> Bytes {
    if is_shared || element.len() >= body.len() / 2 {
        body.slice_ref(element.as_bytes())
    } else {
        memory::copy(element.as_bytes())
    }
}

#[cfg(test)]
mod tests;
