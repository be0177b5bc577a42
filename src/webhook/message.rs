//! An event on its way to the broker: properties and headers of the contract. Knows what stands
//! in a message, not how AMQP writes it.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use uuid::Uuid;

use super::routing::Route;
use super::{Content, Event, Reason, cut};

/// Bytes of a header's text, and of every property: those of an AMQP short string.
const TEXT_BYTES_MAX: usize = 255;

/// Bytes of the header `dead-letter-detail`.
const DETAIL_BYTES_MAX: usize = 1024;

/// One message as it is published: always persistent, mandatory and confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Exchange and routing key.
    pub route: Arc<Route>,
    /// `message_id`.
    pub message_id: Uuid,
    /// `correlation_id`: the session id.
    pub correlation_id: Option<String>,
    /// `type`: `chat-session.<routed status>`, at most 255 bytes.
    pub message_type: String,
    /// `timestamp`: when the webhook was received, in seconds since 1970.
    pub timestamp_seconds: u64,
    /// Headers in order.
    pub headers: Vec<(&'static str, Header)>,
    /// The body, byte for byte.
    pub body: Bytes,
}

/// The value of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Header {
    /// A string, cut to 255 bytes (`dead-letter-detail`: 1 KiB).
    Text(String),
    /// An integer.
    Integer(i64),
}

/// What a dead letter adds to its event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Why.
    pub reason: Reason,
    /// Why, for people; at most 1 KiB.
    pub detail: String,
    /// Since when.
    pub at: Timestamp,
    /// How often it was published before.
    pub attempts: u32,
    /// Where it would have gone.
    pub original: Arc<Route>,
}

impl Message {
    /// The message of an event. `routed_status` is [`Routing::routed_status`] of it.
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

    /// The message of an event that becomes a dead letter: the event's own, and why. One that is
    /// too large for the broker has no body, but the number under which the journal keeps the
    /// event.
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
        if letter.reason == Reason::TooLarge {
            message.body = Bytes::new();
            message
                .headers
                .push(("journal-event", Header::Integer(journal_event)));
        }
        message
    }

    /// The same, sent once more by an operator who began to do so then.
    #[must_use]
    pub fn replayed(mut self, at: Timestamp) -> Self {
        self.headers.push(("replayed-at", time(at)));
        self
    }
}

fn headers(event: &Event) -> Vec<(&'static str, Header)> {
    let envelope = &*event.envelope;
    let mut headers = vec![("source", text(&envelope.source))];
    if let Content::Session(fields) = &event.content {
        headers.push(("session-id", text(&fields.session)));
        headers.extend(optional("session-type", fields.session_type.as_deref()));
        headers.push(("status", text(&fields.status)));
        headers.extend(optional(
            "previous-status",
            fields.previous_status.as_deref(),
        ));
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
