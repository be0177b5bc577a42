//! Cuts a verified body into events: one per element of its array, each with the element's own
//! bytes. Never re-serialises, never recurses, and looks at every byte a fixed number of times,
//! whatever the sender has sent. Knows what routing needs of an element and nothing else of it.

mod depth;
mod fields;
mod members;
mod text;

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserializer as _;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::identity::message_id;
use super::signature::Verified;
use super::{Content, Envelope, Event, Reason, Reject, Webhook};

/// A larger body is not kept in memory for the sake of an element that is less than half of it:
/// the element is copied. An event lives until it is published and counts with its own length
/// only, so 256 events in flight could otherwise hold 256 whole requests.
const SHARED_BYTES_MAX: usize = 16 << 10;

const BYTE_ORDER_MARK: &str = "\u{feff}";

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
        Ok(elements) => (0..)
            .zip(elements)
            .map(|(index, element)| event(&envelope, index, own(&body, element), element))
            .collect(),
        Err(Refusal::TooMany) => return Err(TooManySessions { sessions_max }),
        Err(Refusal::Malformed(detail)) => vec![malformed(&envelope, body, detail)],
    };
    Ok(Webhook { envelope, events })
}

enum Refusal {
    TooMany,
    Malformed(String),
}

/// The text of every element.
fn elements(body: &[u8], sessions_max: usize) -> Result<Vec<&str>, Refusal> {
    let text = std::str::from_utf8(body).map_err(|error| {
        let (line, column) = position(&body[..error.valid_up_to()]);
        Refusal::Malformed(format!("invalid UTF-8 at line {line} column {column}"))
    })?;
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let start = text.trim_ascii_start();
    if start.starts_with('[') {
        array(text, sessions_max)
    } else {
        let value: &RawValue = serde_json::from_str(text).map_err(|error| syntax(&error))?;
        object(
            value.get(),
            position(&text.as_bytes()[..text.len() - start.len()]),
            sessions_max,
        )
    }
}

fn array(text: &str, sessions_max: usize) -> Result<Vec<&str>, Refusal> {
    let mut elements = Elements {
        texts: Vec::new(),
        sessions_max,
    };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let result = deserializer
        .deserialize_seq(&mut elements)
        .and_then(|()| deserializer.end());
    match result {
        _ if elements.texts.len() > sessions_max => Err(Refusal::TooMany),
        Ok(()) => Ok(elements.texts),
        Err(error) => Err(syntax(&error)),
    }
}

fn object(
    text: &str,
    (line, column): (usize, usize),
    sessions_max: usize,
) -> Result<Vec<&str>, Refusal> {
    if !text.starts_with('{') {
        let kind = kind(text);
        return Err(Refusal::Malformed(format!(
            "neither an array nor an object but {kind} at line {line} column {column}"
        )));
    }
    if sessions_max == 0 {
        Err(Refusal::TooMany)
    } else {
        Ok(vec![text])
    }
}

/// Collects element texts, at most one more than allowed.
struct Elements<'a> {
    texts: Vec<&'a str>,
    sessions_max: usize,
}

impl<'a> Visitor<'a> for &mut Elements<'a> {
    type Value = ();

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut array: A) -> Result<(), A::Error> {
        while let Some(element) = array.next_element::<&RawValue>()? {
            self.texts.push(element.get());
            if self.texts.len() > self.sessions_max {
                return Err(A::Error::custom("too many elements"));
            }
        }
        Ok(())
    }
}

fn event(envelope: &Arc<Envelope>, index: u32, body: Bytes, text: &str) -> Event {
    let content = match fields::read(text) {
        Ok(fields) => Content::Session(fields),
        Err(detail) => Content::Reject(Reject {
            reason: Reason::Invalid,
            detail,
        }),
    };
    named(envelope, index, content, body)
}

fn malformed(envelope: &Arc<Envelope>, body: Bytes, detail: String) -> Event {
    named(
        envelope,
        0,
        Content::Reject(Reject {
            reason: Reason::Malformed,
            detail,
        }),
        body,
    )
}

fn named(envelope: &Arc<Envelope>, index: u32, content: Content, body: Bytes) -> Event {
    let session = match &content {
        Content::Session(fields) => fields.session.as_str(),
        Content::Reject(_) => "",
    };
    let message_id = message_id(&envelope.source, session, &body);
    Event {
        envelope: Arc::clone(envelope),
        index,
        message_id,
        content,
        body,
    }
}

/// The element's bytes, shared with the body or not.
fn own(body: &Bytes, element: &str) -> Bytes {
    if body.len() <= SHARED_BYTES_MAX || element.len() >= body.len() / 2 {
        body.slice_ref(element.as_bytes())
    } else {
        Bytes::copy_from_slice(element.as_bytes())
    }
}

fn syntax(error: &serde_json::Error) -> Refusal {
    Refusal::Malformed(error.to_string())
}

/// Line and column (in bytes) of what follows, both from 1.
fn position(before: &[u8]) -> (usize, usize) {
    let line_start = memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1);
    (
        memchr::memchr_iter(b'\n', before).count() + 1,
        before.len() - line_start + 1,
    )
}

/// What a JSON text is, by its first byte.
fn kind(text: &str) -> &'static str {
    match text.as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

#[cfg(test)]
mod tests;
