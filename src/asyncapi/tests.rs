use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use super::headers;
use crate::webhook::message::{DeadLetter, Header, Message};
use crate::webhook::routing::Route;
use crate::webhook::{DeadLetterReason, Event, samples};

/// A session with everything that becomes a header.
fn full() -> Event {
    let mut envelope = samples::envelope();
    envelope.traceparent = Some("00-1-2-01".into());
    envelope.tracestate = Some("vendor=1".into());
    let body = r#"{"id":"1-1","type":"push","status":"missed","pastStatus":["created"]}"#;
    Event {
        envelope: Arc::new(envelope),
        ..samples::event(body)
    }
}

fn route() -> Arc<Route> {
    Arc::new(Route {
        exchange: "chat-sessions".into(),
        routing_key: "chat-session.missed".into(),
    })
}

fn letter(event: &Event) -> Message {
    let letter = DeadLetter {
        reason: DeadLetterReason::TooLarge,
        detail: "too large".into(),
        at: event.envelope.received_at,
        attempts: 1,
        original: route(),
    };
    Message::dead_letter(event, route(), "missed", &letter, 7)
}

fn names(message: &Message) -> BTreeSet<&str> {
    message.headers.iter().map(|(name, _)| *name).collect()
}

fn described(schema: &Value) -> BTreeSet<&str> {
    let properties = schema["properties"].as_object().unwrap();
    properties.keys().map(String::as_str).collect()
}

fn required(schema: &Value) -> BTreeSet<&str> {
    let names = schema["required"].as_array().unwrap();
    names.iter().filter_map(Value::as_str).collect()
}

#[test]
fn exactly_the_published_headers_are_described() {
    let event = full();
    let message = Message::of(&event, route(), "missed");
    let schema = headers::session();
    assert_eq!(described(&schema), names(&message));
    let schema = headers::dead_letter();
    assert_eq!(described(&schema), names(&letter(&event)));
    for (name, value) in letter(&event).headers {
        let expected = match value {
            Header::Text(_) => "string",
            Header::Integer(_) => "integer",
        };
        assert_eq!(schema["properties"][name]["type"], expected, "{name}");
    }
}

#[test]
fn only_headers_of_every_message_are_required() {
    let least = samples::event(r#"{"id":"1-1","status":"missed"}"#);
    let message = Message::of(&least, route(), "missed");
    assert_eq!(required(&headers::session()), names(&message));
    let reject = samples::event("null");
    let own = Message::of(&reject, route(), "invalid");
    let mut expected = names(&own);
    let added = letter(&reject);
    expected.extend(
        names(&added)
            .into_iter()
            .filter(|name| *name != "journal-event"),
    );
    assert_eq!(required(&headers::dead_letter()), expected);
}
