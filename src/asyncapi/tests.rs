use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use super::channels::may_match;
use super::headers;
use crate::webhook::message::{DeadLetter, Header, Message};
use crate::webhook::routing::Route;
use crate::webhook::{Event, Reason, samples};

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
        reason: Reason::TooLarge,
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
fn every_header_is_described_and_no_other() {
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
fn only_what_every_message_has_is_required() {
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

#[test]
fn a_binding_may_take_what_its_pattern_allows() {
    let check = |pattern: &str, address: &str, expected: bool| {
        let split = |text| str::split(text, '.').collect::<Vec<_>>();
        let found = may_match(&split(pattern), &split(address));
        assert_eq!(found, expected, "{pattern} {address}");
    };
    check("#", "chat-session.missed", true);
    check("chat-session.*", "chat-session.missed", true);
    check("chat-session.missed", "chat-session.missed", true);
    check("chat-session.#.missed", "chat-session.missed", true);
    check("#.missed", "a.b.missed", true);
    check("*", "chat-session.missed", false);
    check("chat-session.created", "chat-session.missed", false);
    check("chat-session.missed.*", "chat-session.missed", false);
    check("acme.missed", "{company}.missed", true);
    check("acme.created", "{company}.missed", false);
    check("chat-session.a.b", "chat-session.{company}", false);
}
