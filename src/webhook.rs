//! The pure module: bytes in, messages out. No clock, no I/O, no tokio.
//!
//! A **webhook** is one request. Each element of its array is an **event**: one chat session as
//! it was at one moment. A **message** is an event as it is published to the broker.

pub mod attributes;
pub mod identity;
pub mod message;
pub mod routing;
#[cfg(test)]
pub(crate) mod samples;
pub mod search;
pub mod session;
pub mod signature;
pub mod split;

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use uuid::Uuid;

/// What all events of one webhook share.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Envelope {
    /// Identifies the request in answers, headers and logs; generated for every request.
    pub webhook_id: Uuid,
    /// Name of the source, as under `[sources]`.
    pub source: Arc<str>,
    /// When the request was complete.
    pub received_at: Timestamp,
    /// W3C trace context of the request, if it had one.
    pub traceparent: Option<String>,
    /// Vendor part of the trace context.
    pub tracestate: Option<String>,
}

/// One verified request, split into events.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// What its events share.
    pub envelope: Arc<Envelope>,
    /// One event per element of the array, in order; a single one for a malformed body.
    pub events: Vec<Arc<Event>>,
}

/// A chat session as received at one moment: one element of a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The envelope of the request that contained it.
    pub envelope: Arc<Envelope>,
    /// Position in the array, from 0.
    pub index: u32,
    /// Identical for the same event, however often it is sent; see [`identity::message_id`].
    pub message_id: Uuid,
    /// The routing fields, or why there are none.
    pub content: Content,
    /// The element's bytes exactly as received.
    pub body: Bytes,
}

/// Whether an element can be routed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A chat session that can be routed.
    Session(Fields),
    /// An invalid element, or a malformed body: it goes to the dead-letter exchange.
    Reject(Reject),
}

/// The fields of a session that routing needs, unescaped.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fields {
    /// `id`, 1 to 255 bytes. Events with the same one are published in order.
    pub session: Arc<str>,
    /// `status`, verbatim.
    pub status: String,
    /// The values of [`attributes::ATTRIBUTES`].
    pub attributes: attributes::AttributeValues,
}

/// Why an element, or a malformed body as a whole, cannot be routed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// [`DeadLetterReason::Invalid`] or [`DeadLetterReason::Malformed`].
    pub reason: DeadLetterReason,
    /// What is wrong with it, as text for people; at most 1 KiB.
    pub detail: String,
}

/// Why a message is a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DeadLetterReason {
    /// The element lacks what routing needs.
    Invalid,
    /// The body is not JSON, or neither array nor object.
    Malformed,
    /// Returned by the broker too often: no queue is bound for it.
    Unroutable,
    /// Rejected by the broker (nack) too often.
    Nacked,
    /// Larger than the broker accepts.
    TooLarge,
    /// The stored body no longer matches its `message_id`.
    Damaged,
}

impl Webhook {
    /// Prepends `known` to the detail of a malformed body; does nothing for any other body.
    pub fn explain_malformed(&mut self, known: &str) {
        if let Some(event) = self.events.first_mut()
            && let Content::Reject(reject) = &mut Arc::make_mut(event).content
            && reject.reason == DeadLetterReason::Malformed
        {
            reject.detail = format!("{known}: {}", reject.detail);
        }
    }

    /// Why the body is malformed, if it is. Its single event then contains the whole body.
    #[must_use]
    pub fn malformed(&self) -> Option<&Reject> {
        match &self.events.first()?.content {
            Content::Reject(reject) if reject.reason == DeadLetterReason::Malformed => Some(reject),
            Content::Reject(_) | Content::Session(_) => None,
        }
    }
}

impl DeadLetterReason {
    /// All reasons, in the order of their declaration.
    pub const ALL: [Self; 6] = [
        Self::Invalid,
        Self::Malformed,
        Self::Unroutable,
        Self::Nacked,
        Self::TooLarge,
        Self::Damaged,
    ];

    /// The name in headers, routing keys, metrics and the journal.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Malformed => "malformed",
            Self::Unroutable => "unroutable",
            Self::Nacked => "nacked",
            Self::TooLarge => "too-large",
            Self::Damaged => "damaged",
        }
    }

    /// The reason with this name, if there is one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }
}

impl Event {
    /// The session's id; `None` for a reject.
    #[must_use]
    pub fn session(&self) -> Option<&str> {
        self.session_id().map(|session| &**session)
    }

    /// As [`Event::session`], but as a shared string that can be stored.
    #[must_use]
    pub fn session_id(&self) -> Option<&Arc<str>> {
        match &self.content {
            Content::Session(fields) => Some(&fields.session),
            Content::Reject(_) => None,
        }
    }
}

/// The longest beginning of a text that fits into `bytes_max` bytes, in whole characters.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}
