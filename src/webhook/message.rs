//! An event as it is published to the broker: properties, headers and body. Knows the content of a
//! message, but not its AMQP encoding.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use super::attributes::ATTRIBUTES;
use super::routing::Route;
use super::{Content, DeadLetterReason, Event, cut};

/// Maximum length of a header's text and of every property, in bytes: that of an AMQP short string.
const TEXT_BYTES_MAX: usize = 255;

/// Maximum length of the header `dead-letter-detail`, in bytes.
const DETAIL_BYTES_MAX: usize = 1024;

/// One message as it is published: always persistent, mandatory and confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Exchange and routing key.
    pub route: Arc<Route>,
    /// The property `message_id`.
    pub message_id: Uuid,
    /// `correlation_id`: the session id; `None` for a reject.
    pub correlation_id: Option<String>,
    /// `type`: `chat-session.<routed status>`, at most 255 bytes.
    pub message_type: String,
    /// `timestamp`: when the webhook was received, in seconds since 1970.
    pub timestamp_seconds: u64,
    /// Headers, in the order in which they are published.
    pub headers: Vec<(&'static str, Header)>,
    /// The body, byte for byte as received.
    pub body: Bytes,
}

/// The value of a header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Header {
    /// A string, cut to 255 bytes (`dead-letter-detail`: 1 KiB).
    Text(String),
    /// An integer.
    Integer(i64),
}

/// What the headers of a dead letter add to those of its event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Why it is a dead letter; also its routing key.
    pub reason: DeadLetterReason,
    /// The cause, as text for people; cut to 1 KiB.
    pub detail: String,
    /// When it became a dead letter.
    pub at: Timestamp,
    /// How often it was published before it became a dead letter.
    pub attempts: u32,
    /// The route that it would have had otherwise.
    pub original: Arc<Route>,
}

impl Message {
    /// The message of an event. `routed_status` is [`Routing::routed_status`] of the event.
    ///
    /// [`Routing::routed_status`]: super::routing::Routing::routed_status
    #[must_use]
    pub fn of(event: &Event, route: Arc<Route>, routed_status: &str) -> Self {
        let seconds = event.envelope.received_at.as_second();
        let message_type = format!("chat-session.{routed_status}");
        Self {
            route,
            message_id: event.message_id,
            correlation_id: event.session().map(|id| cut(id, TEXT_BYTES_MAX).to_owned()),
            message_type: cut(&message_type, TEXT_BYTES_MAX).to_owned(),
            timestamp_seconds: u64::try_from(seconds).unwrap_or(0),
            headers: headers(event),
            body: event.body.clone(),
        }
    }

    /// The message of an event that becomes a dead letter: the event's own message, and the reason.
    /// An event that is too large for the broker is published without its body, but with the number
    /// under which the journal keeps it.
    #[must_use]
    pub fn dead_letter(
        event: &Event,
        route: Arc<Route>,
        routed_status: &str,
        letter: &DeadLetter,
        journal_event: i64,
    ) -> Self {
        let mut message = Self::of(event, route, routed_status);
        message.headers.extend(dead_letter_headers(letter));
        if letter.reason == DeadLetterReason::TooLarge {
            message.body = Bytes::new();
            message
                .headers
                .push(("journal-event", Header::Integer(journal_event)));
        }
        message
    }

    /// The same message as a replay that an operator started at `at`.
    #[must_use]
    pub fn replayed(mut self, at: Timestamp) -> Self {
        self.headers.push(replayed_at(at));
        self
    }
}

/// The header that marks a replayed message, with the time of the replay.
#[must_use]
pub fn replayed_at(at: Timestamp) -> (&'static str, Header) {
    ("replayed-at", time(at))
}

fn headers(event: &Event) -> Vec<(&'static str, Header)> {
    let envelope = &*event.envelope;
    let mut headers = vec![("source", text(&envelope.source))];
    if let Content::Session(fields) = &event.content {
        headers.push(("session-id", text(&fields.session)));
        headers.push(("status", text(&fields.status)));
        for (attribute, value) in ATTRIBUTES.iter().zip(&fields.attributes) {
            headers.extend(attribute.header.zip(value.as_deref().map(text)));
        }
    }
    headers.push(("webhook-id", Header::Text(envelope.webhook_id.to_string())));
    headers.push(("webhook-index", Header::Integer(event.index.into())));
    headers.push(("received-at", time(envelope.received_at)));
    headers.extend(optional("traceparent", envelope.traceparent.as_deref()));
    headers.extend(optional("tracestate", envelope.tracestate.as_deref()));
    headers
}

fn dead_letter_headers(letter: &DeadLetter) -> [(&'static str, Header); 6] {
    let detail = cut(&letter.detail, DETAIL_BYTES_MAX).to_owned();
    [
        ("dead-letter-reason", text(letter.reason.as_str())),
        ("dead-letter-detail", Header::Text(detail)),
        ("dead-letter-at", time(letter.at)),
        ("original-exchange", text(&letter.original.exchange)),
        ("original-routing-key", text(&letter.original.routing_key)),
        ("attempts", Header::Integer(letter.attempts.into())),
    ]
}

fn optional(name: &'static str, value: Option<&str>) -> Option<(&'static str, Header)> {
    value.map(|value| (name, text(value)))
}

fn text(value: &str) -> Header {
    Header::Text(cut(value, TEXT_BYTES_MAX).to_owned())
}

/// RFC 3339 in UTC, to the millisecond.
fn time(at: Timestamp) -> Header {
    Header::Text(format!("{at:.3}"))
}

#[cfg(test)]
mod tests;
