//! How a received message is shown: for people, or as a line of JSON.

use std::fmt::Write;

use deskbridge::rabbitmq::consumer::Received;
use deskbridge::telemetry::foreign;
use deskbridge::webhook::message::Header;
use deskbridge::webhook::session::{ChatSession, Lenient, User};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::cli::time::Clock;

/// One line for the session, one for its circumstances, and its body if asked for.
pub fn readable(received: &Received, with_body: bool, clock: &Clock) -> String {
    let session: Lenient<ChatSession> = serde_json::from_slice(&received.body).unwrap_or_default();
    let session = session.get();
    let mut text = String::new();
    let id = received
        .correlation_id
        .as_deref()
        .unwrap_or("no session id");
    let _ = write!(
        text,
        "{}  {}",
        foreign::line(&received.routing_key),
        foreign::line(id)
    );
    for part in session.iter().flat_map(|session| description(session)) {
        let _ = write!(text, "  {}", foreign::line(&part));
    }
    let size = received.body.len();
    let _ = write!(
        text,
        "\n    {} bytes, exchange {}",
        size,
        foreign::line(&received.exchange)
    );
    for name in [
        "source",
        "received-at",
        "dead-letter-reason",
        "dead-letter-detail",
        "replayed-at",
    ] {
        if let Some(value) = header(received, name) {
            let value = clock.show_text(&value);
            let _ = write!(text, ", {name} {}", foreign::line(&value));
        }
    }
    text.push('\n');
    if with_body {
        text.push_str(&indented(&received.body));
    }
    text
}

/// A body of which no line looks like one of ours.
pub fn indented(body: &[u8]) -> String {
    let body = String::from_utf8_lossy(body);
    let lines = body.lines().flat_map(|line| ["    ", line, "\n"]);
    lines.collect()
}

/// One object with everything; the body stands in it as it is if it is JSON, else as text.
pub fn json(received: &Received) -> String {
    let headers: Map<String, Value> = received
        .headers
        .iter()
        .map(|(name, value)| (name.clone(), header_value(value)))
        .collect();
    let mut object = properties(received);
    object.insert("headers".into(), headers.into());
    with_body(object, &received.body)
}

/// Where it was published, and its properties.
pub fn properties(received: &Received) -> Map<String, Value> {
    let properties = json!({
        "exchange": received.exchange,
        "routing_key": received.routing_key,
        "redelivered": received.is_redelivered,
        "message_id": received.message_id,
        "correlation_id": received.correlation_id,
        "type": received.message_type,
        "app_id": received.app_id,
        "content_type": received.content_type,
        "delivery_mode": received.delivery_mode,
        "timestamp": received.timestamp_seconds,
    });
    properties.as_object().cloned().unwrap_or_default()
}

/// A line with the object and, last in it, the body: as it stands if it is JSON, else as text.
pub fn with_body(object: Map<String, Value>, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let raw = serde_json::from_str::<&RawValue>(&text).map(RawValue::get);
    // A line break between tokens would break the line; one inside a string cannot be there.
    let body = match raw {
        Ok(raw) => raw.replace(['\n', '\r'], " "),
        Err(_) => Value::from(text.as_ref()).to_string(),
    };
    let object = Value::from(object).to_string();
    let open = object.strip_suffix('}').unwrap_or(&object);
    format!("{open},\"body\":{body}}}\n")
}

/// `completed, was handled` · `request from Liam Tait at DeskDirector`
fn description(session: &ChatSession) -> Vec<String> {
    let mut parts = Vec::new();
    if let Some(status) = session.status.get() {
        let was = session
            .past_status
            .get()
            .and_then(|past| past.last())
            .and_then(Lenient::get);
        parts.push(was.map_or(status.to_string(), |was| format!("{status}, was {was}")));
    }
    let kind = session.session_type.get().map(ToString::to_string);
    let from = session
        .creator
        .get()
        .and_then(person)
        .map(|person| format!("from {person}"));
    let who: Vec<String> = kind.into_iter().chain(from).collect();
    if !who.is_empty() {
        parts.push(who.join(" "));
    }
    parts
}

fn person(user: &User) -> Option<String> {
    let name = user.name.get()?;
    let company = user.company.get().and_then(|company| company.name.get());
    Some(company.map_or(name.clone(), |company| format!("{name} at {company}")))
}

fn header(received: &Received, name: &str) -> Option<String> {
    let (_, value) = received.headers.iter().find(|(header, _)| header == name)?;
    Some(match value {
        Header::Text(text) => text.clone(),
        Header::Integer(number) => number.to_string(),
    })
}

fn header_value(header: &Header) -> Value {
    match header {
        Header::Text(text) => text.as_str().into(),
        Header::Integer(number) => (*number).into(),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn received(body: &'static str) -> Received {
        Received {
            exchange: "chat-sessions".into(),
            routing_key: "chat-session.completed".into(),
            is_redelivered: false,
            delivery_mode: Some(2),
            content_type: Some("application/json".into()),
            message_id: Some("id".into()),
            correlation_id: Some("1530162945-9852".into()),
            message_type: Some("chat-session.completed".into()),
            app_id: Some("deskbridge".into()),
            timestamp_seconds: Some(1),
            headers: vec![
                ("source".into(), Header::Text("dd".into())),
                ("webhook-index".into(), Header::Integer(0)),
            ],
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    #[test]
    fn a_session_is_shown_with_key_id_status_and_creator() {
        let body = r#"{"status":"completed","pastStatus":["handled"],"type":"request",
            "creator":{"name":"Liam Tait","company":{"name":"DeskDirector"}}}"#;
        let clock = Clock::at("Europe/Berlin", "2026-01-01T00:00:00Z");
        let mut message = received(body);
        let at = Header::Text("2026-07-01T12:00:00.000Z".into());
        message.headers.push(("received-at".into(), at));
        let text = readable(&message, false, &clock);
        let first = "chat-session.completed  1530162945-9852  completed, was handled  request from Liam Tait at DeskDirector";
        assert_eq!(text.lines().next(), Some(first));
        assert!(text.contains("exchange chat-sessions, source dd"), "{text}");
        assert!(
            text.contains("received-at 2026-07-01T14:00:00.000+02:00"),
            "{text}"
        );
    }

    #[test]
    fn no_value_and_no_body_looks_like_another_message() {
        let mut message = received("{\"status\":\"a\\nb\"}\nchat-session.missed");
        message.routing_key = "a\u{202e}b\n".into();
        let clock = Clock::at("UTC", "2026-01-01T00:00:00Z");
        let text = readable(&message, true, &clock);
        assert!(text.starts_with("a\\u{202e}b\\n  "), "{text:?}");
        assert!(text.lines().skip(1).all(|line| line.starts_with("    ")));
        assert!(text.ends_with("\n    chat-session.missed\n"), "{text}");
    }

    #[test]
    fn json_is_one_line_with_the_body_as_it_is() {
        let line = json(&received(
            "{\n  \"n\": 1.000000000000000005,\r\n \"s\": \"a\\nb\"}",
        ));
        assert_eq!(line.matches('\n').count(), 1);
        assert!(
            line.ends_with("\"body\":{   \"n\": 1.000000000000000005,   \"s\": \"a\\nb\"}}\n"),
            "{line}"
        );
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            value["headers"],
            json!({ "source": "dd", "webhook-index": 0 })
        );
        let line = json(&received("not json"));
        assert!(line.ends_with("\"body\":\"not json\"}\n"), "{line}");
    }
}
