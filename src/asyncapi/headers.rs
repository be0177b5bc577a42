//! The headers of messages and dead letters. A test compares them with the headers that
//! `webhook::message` creates.

use serde_json::{Value, json};

use crate::webhook::DeadLetterReason;

/// The reasons with which the broker dead-letters a message from a consumer's queue.
const REASONS_OF_THE_BROKER: [&str; 4] = ["rejected", "delivery_limit", "expired", "maxlen"];

/// All reasons that a dead letter can have.
pub(super) fn reasons() -> Vec<&'static str> {
    let own = DeadLetterReason::ALL
        .into_iter()
        .map(DeadLetterReason::as_str);
    own.chain(REASONS_OF_THE_BROKER).collect()
}

/// The headers of every message of a session.
pub(super) fn session() -> Value {
    json!({
        "type": "object",
        "required": ["source", "session-id", "status", "webhook-id", "webhook-index", "received-at"],
        "properties": {
            "source": text("The source in the webhook's URL.", &["deskdirector"]),
            "session-id": text("The session's id.", &["1530162945-9852"]),
            "session-type": text("The session's type, if it has one.", &["request", "push"]),
            "status": text("The session's status, verbatim.", &["missed"]),
            "previous-status": text("The last of `pastStatus`, if there is one.", &["created"]),
            "webhook-id": text("The request that contained it (UUID).", &["019aa8a4-9c3e-7d21-a5c1-2f3f5d7a9b11"]),
            "webhook-index": integer("Its position in that request, from 0."),
            "received-at": text("When the request was received (RFC 3339, UTC).", &["2026-11-22T01:02:03.456Z"]),
            "traceparent": text(
                "W3C trace context of the request, if it had one.",
                &["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"],
            ),
            "tracestate": text("Vendor part of the trace context.", &["vendor=1"]),
        },
    })
}

/// The headers of a dead letter: those of its message (a reject has no session), and why it is one.
pub(super) fn dead_letter() -> Value {
    with_session_headers(json!({
        "type": "object",
        "required": [
            "source", "webhook-id", "webhook-index", "received-at", "dead-letter-reason", "dead-letter-detail",
            "dead-letter-at", "original-exchange", "original-routing-key", "attempts",
        ],
        "properties": {
            "dead-letter-reason": {
                "description": "Why it is a dead letter; also its routing key.",
                "type": "string",
                "enum": reasons(),
            },
            "dead-letter-detail": {
                "description": "The cause, as text for people; at most 1 KiB.",
                "type": "string",
                "examples": ["missing field `status`"],
            },
            "dead-letter-at": text("When it became one (RFC 3339, UTC).", &["2026-11-22T01:02:03.456Z"]),
            "original-exchange": text("The exchange to which it would have been published.", &["chat-sessions"]),
            "original-routing-key": text("The routing key that it would have had.", &["chat-session.missed"]),
            "attempts": integer("How often it was published before it became a dead letter."),
            "journal-event": integer("With `too-large`: number of the event in the journal, which keeps the body."),
        },
    }))
}

/// The headers of a message that the broker dead-lettered from a consumer's queue: RabbitMQ adds
/// some.
pub(super) fn given_up() -> Value {
    with_session_headers(json!({
        "type": "object",
        "required": [
            "source", "session-id", "status", "webhook-id", "webhook-index", "received-at",
            "x-first-death-queue", "x-first-death-reason", "x-first-death-exchange", "x-death",
        ],
        "properties": {
            "x-first-death-queue": text("The queue from which it was first dead-lettered.", &["ticketing"]),
            "x-first-death-reason": text("Why it was: `delivery_limit`, `rejected`, `expired` or `maxlen`.", &["delivery_limit"]),
            "x-first-death-exchange": text("The exchange to which it was published.", &["chat-sessions"]),
            "x-death": {
                "description": "Its history of dead-lettering, latest first: one entry for each queue and reason.",
                "type": "array",
                "items": { "type": "object", "properties": {
                    "count": { "type": "integer" },
                    "queue": { "type": "string" },
                    "reason": { "type": "string" },
                    "exchange": { "type": "string" },
                    "routing-keys": { "type": "array", "items": { "type": "string" } },
                } },
            },
        },
    }))
}

/// Adds the headers of a session to those of a schema.
fn with_session_headers(mut schema: Value) -> Value {
    let session = session()["properties"].take();
    if let (Value::Object(of_schema), Value::Object(session)) = (&mut schema["properties"], session)
    {
        of_schema.extend(session);
    }
    schema
}

fn text(description: &str, examples: &[&str]) -> Value {
    json!({ "description": description, "type": "string", "maxLength": 255, "examples": examples })
}

fn integer(description: &str) -> Value {
    json!({ "description": description, "type": "integer", "minimum": 0 })
}
