//! The pure room: bytes in, messages out. No clock, no I/O, no tokio.
//!
//! A **webhook** is one request. Each element of its array is an **event**: one chat session as
//! it was at one moment. An event on its way to the broker is a **message**.

pub mod identity;
pub mod message;
pub mod routing;
#[cfg(test)]
pub(crate) mod samples;
pub mod session;
pub mod signature;
pub mod split;

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use uuid::Uuid;

/// What all events of one webhook share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Identifies the request in answers, headers and logs; made anew for every request.
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

/// One authenticated request, split.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// What its events share.
    pub envelope: Arc<Envelope>,
    /// One per element of the array, in order; one for the whole of a malformed body.
    pub events: Vec<Event>,
}

/// A chat session as received at one moment: one element of a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The request it came with.
    pub envelope: Arc<Envelope>,
    /// Position in the array, from 0.
    pub index: u32,
    /// The same for the same event, however often it is sent.
    pub message_id: Uuid,
    /// The routing fields, or why there are none.
    pub content: Content,
    /// The element's bytes exactly as received.
    pub body: Bytes,
}

/// What an element turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A chat session that can be routed.
    Session(Fields),
    /// An element for the dead-letter exchange.
    Reject(Reject),
}

/// The fields of a session that routing needs, unescaped.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fields {
    /// `id`, 1 to 255 bytes.
    pub session: String,
    /// `status`, verbatim.
    pub status: String,
    /// `type`, if it is a string.
    pub session_type: Option<String>,
    /// The last of `pastStatus`, if it is a string.
    pub previous_status: Option<String>,
    /// `creator.company.identifier`, if it is a string.
    pub company: Option<String>,
}

/// Why an element cannot be routed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// [`Reason::Invalid`] or [`Reason::Malformed`].
    pub reason: Reason,
    /// What is wrong with it, for people; at most 1 KiB.
    pub detail: String,
}

/// Why a message is a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The element lacks what routing needs.
    Invalid,
    /// The body is not JSON, or neither array nor object.
    Malformed,
    /// Returned by the broker too often: no queue takes it.
    Unroutable,
    /// Refused by the broker too often.
    Nacked,
    /// Larger than the broker takes.
    TooLarge,
    /// The stored body no longer matches its `message_id`.
    Damaged,
}

impl Webhook {
    /// Puts before the detail of a malformed body what else is known of it.
    pub fn explain_malformed(&mut self, known: &str) {
        if let Some(Event {
            content: Content::Reject(reject),
            ..
        }) = self.events.first_mut()
            && reject.reason == Reason::Malformed
        {
            reject.detail = format!("{known}: {}", reject.detail);
        }
    }

    /// Why the body is malformed, if it is: then its one event holds all of it.
    #[must_use]
    pub fn malformed(&self) -> Option<&Reject> {
        match &self.events.first()?.content {
            Content::Reject(reject) if reject.reason == Reason::Malformed => Some(reject),
            Content::Reject(_) | Content::Session(_) => None,
        }
    }
}

impl Reason {
    /// Every reason, in the order of the contract.
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

    /// The reason of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }
}

impl Event {
    /// The session's id; `None` for a reject.
    #[must_use]
    pub fn session(&self) -> Option<&str> {
        match &self.content {
            Content::Session(fields) => Some(&fields.session),
            Content::Reject(_) => None,
        }
    }
}

/// The beginning of a text that fits into so many bytes, whole characters only.
fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}
