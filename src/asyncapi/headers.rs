//! What stands in the headers of messages and dead letters. A test holds it to the headers that
//! `webhook::message` makes.

use serde_json::{Map, Value, json};

use crate::webhook::Reason;

/// One header: its name, whether every message has it, what it is.
type Header = (&'static str, bool, Value);

/// What the broker says of a message that died in a consumers' queue.
const REASONS_OF_THE_BROKER: [&str; 4] = ["rejected", "delivery_limit", "expired", "maxlen"];

/// Everything that a dead letter may have for a reason.
pub(super) fn reasons() -> Vec<&'static str> {
    let own = Reason::ALL.into_iter().map(Reason::as_str);
    own.chain(REASONS_OF_THE_BROKER).collect()
}

/// Of every message of a session.
pub(super) fn session() -> Value {
    object(session_headers())
}

/// Of a dead letter: what its message had (a reject has no session), and why it is one.
pub(super) fn dead_letter() -> Value {
    let of_session = session_headers()
        .into_iter()
        .map(|(name, required, schema)| {
            let is_always_there = required && !matches!(name, "session-id" | "status");
            (name, is_always_there, schema)
        });
    object(of_session.chain(dead_letter_headers()))
}

/// Of a message that a consumer's queue gave up: what RabbitMQ adds.
pub(super) fn given_up() -> Value {
    object(session_headers().into_iter().chain([
        ("x-first-death-queue", true, text("The queue that gave it up first.", &["ticketing"])),
        ("x-first-death-reason", true, text("Why: `delivery_limit`, `rejected`, `expired` or `maxlen`.", &["delivery_limit"])),
        ("x-first-death-exchange", true, text("The exchange it was published to.", &["chat-sessions"])),
        ("x-death", true, json!({
            "description": "Its history, the latest first: one entry for each queue and reason.",
            "type": "array",
            "items": { "type": "object", "properties": {
                "count": { "type": "integer" },
                "queue": { "type": "string" },
                "reason": { "type": "string" },
                "exchange": { "type": "string" },
                "routing-keys": { "type": "array", "items": { "type": "string" } },
            } },
        })),
    ]))
}

fn session_headers() -> [Header; 10] {
    [
        (
            "source",
            true,
            text("The source in the webhook's URL.", &["deskdirector"]),
        ),
        (
            "session-id",
            true,
            text("The session's id.", &["1530162945-9852"]),
        ),
        (
            "session-type",
            false,
            text("The session's type, if it has one.", &["request", "push"]),
        ),
        (
            "status",
            true,
            text("The session's status, verbatim.", &["missed"]),
        ),
        (
            "previous-status",
            false,
            text("The last of `pastStatus`, if there is one.", &["created"]),
        ),
        (
            "webhook-id",
            true,
            text(
                "The request it came with (UUID).",
                &["019aa8a4-9c3e-7d21-a5c1-2f3f5d7a9b11"],
            ),
        ),
        (
            "webhook-index",
            true,
            integer("Its place in that request, from 0."),
        ),
        (
            "received-at",
            true,
            text(
                "When the request was received (RFC 3339, UTC).",
                &["2026-11-22T01:02:03.456Z"],
            ),
        ),
        (
            "traceparent",
            false,
            text(
                "W3C trace context of the request, if it had one.",
                &["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"],
            ),
        ),
        ("tracestate", false, text("Its vendor part.", &["vendor=1"])),
    ]
}

fn dead_letter_headers() -> [Header; 7] {
    let reason = json!({
        "description": "Why it is a dead letter; its routing key too.",
        "type": "string",
        "enum": reasons(),
    });
    [
        ("dead-letter-reason", true, reason),
        (
            "dead-letter-detail",
            true,
            json!({
                "description": "Why, for people; at most 1 KiB.",
                "type": "string",
                "examples": ["missing field `status`"],
            }),
        ),
        (
            "dead-letter-at",
            true,
            text("Since when (RFC 3339, UTC).", &["2026-11-22T01:02:03.456Z"]),
        ),
        (
            "original-exchange",
            true,
            text(
                "Where it would have gone: the exchange.",
                &["chat-sessions"],
            ),
        ),
        (
            "original-routing-key",
            true,
            text(
                "Where it would have gone: the routing key.",
                &["chat-session.missed"],
            ),
        ),
        (
            "attempts",
            true,
            integer("How often it was published before."),
        ),
        (
            "journal-event",
            false,
            integer("With `too-large`: the event in the bridge's journal, which keeps the body."),
        ),
    ]
}

fn object(headers: impl IntoIterator<Item = Header>) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for (name, is_required, schema) in headers {
        properties.insert(name.into(), schema);
        required.extend(is_required.then_some(name));
    }
    json!({ "type": "object", "properties": properties, "required": required })
}

fn text(description: &str, examples: &[&str]) -> Value {
    json!({ "description": description, "type": "string", "maxLength": 255, "examples": examples })
}

fn integer(description: &str) -> Value {
    json!({ "description": description, "type": "integer", "minimum": 0 })
}
