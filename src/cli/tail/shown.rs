//! How a received message is printed: as text, or as a line of JSON.

use std::collections::BTreeMap;

use deskbridge::foreign;
use deskbridge::rabbitmq::consumer::Received;
use deskbridge::webhook::message::Header;
use deskbridge::webhook::session::{ChatSession, Lenient, User};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::cli::time::Clock;

/// The headers in the second line of a message.
const SHOWN_HEADERS: [&str; 5] = [
    "source",
    "received-at",
    "dead-letter-reason",
    "dead-letter-detail",
    "replayed-at",
];

/// One line for the session, one for size, exchange and selected headers, and optionally the body.
pub fn readable(received: &Received, with_body: bool, clock: &Clock) -> String {
    let session: Lenient<ChatSession> = serde_json::from_slice(&received.body).unwrap_or_default();
    let id = received.correlation_id.as_deref();
    let mut first = vec![
        received.routing_key.clone(),
        id.unwrap_or("no session id").into(),
    ];
    first.extend(session.get().into_iter().flat_map(description));
    let (size, exchange) = (received.body.len(), &received.exchange);
    let mut second = vec![format!("{size} bytes"), format!("exchange {exchange}")];
    for name in SHOWN_HEADERS {
        let header = received.headers.iter().find(|(header, _)| header == name);
        second.extend(header.map(|(_, value)| match value {
            Header::Text(text) => format!("{name} {}", clock.show_text(text)),
            Header::Integer(number) => format!("{name} {number}"),
        }));
    }
    let (first, second) = (first.join("  "), second.join(", "));
    let (first, second) = (foreign::line(&first), foreign::line(&second));
    let mut text = format!("{first}\n    {second}\n");
    if with_body {
        text.push_str(&indented(&received.body));
    }
    text
}

/// A body with every line indented, so that none looks like a line of the command.
pub fn indented(body: &[u8]) -> String {
    let body = String::from_utf8_lossy(body);
    let lines = body.lines().flat_map(|line| ["    ", line, "\n"]);
    lines.collect()
}

/// A line with a JSON object of everything, the body as in [`with_body`].
pub fn json(received: &Received) -> String {
    let headers = received.headers.iter();
    let headers: BTreeMap<_, _> = headers.map(|(name, value)| (name, value)).collect();
    let mut object = properties(received);
    object.insert("headers".into(), json!(headers));
    with_body(&object.into(), &received.body)
}

/// Exchange, routing key and properties of a message.
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

/// A line with the object and, as its last member, the body. A body that is JSON is inserted
/// unchanged, except line breaks between its tokens; any other body is inserted as text.
pub fn with_body(object: &Value, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let raw = serde_json::from_str::<&RawValue>(&text).map(RawValue::get);
    // A line break between tokens would split the line. JSON strings cannot contain a raw one.
    let body = match raw {
        Ok(raw) => raw.replace(['\n', '\r'], " "),
        Err(_) => Value::from(text.as_ref()).to_string(),
    };
    let object = object.to_string();
    let open = object.strip_suffix('}').unwrap_or(&object);
    format!("{open},\"body\":{body}}}\n")
}

/// The parts that describe a session, such as `completed, was handled` and
/// `request from Liam Tait at DeskDirector`.
fn description(session: &ChatSession) -> Vec<String> {
    let past = session.past_status.get().and_then(|past| past.last());
    let was = past.and_then(Lenient::get);
    let was = was.map_or(String::new(), |was| format!(", was {was}"));
    let status = session.status.get();
    let status = status.map(|status| format!("{status}{was}"));
    let kind = session.session_type.get().map(ToString::to_string);
    let from = session.creator.get().and_then(person);
    let from = from.map(|person| format!("from {person}"));
    let who: Vec<_> = kind.into_iter().chain(from).collect();
    let who = (!who.is_empty()).then(|| who.join(" "));
    status.into_iter().chain(who).collect()
}

fn person(user: &User) -> Option<String> {
    let name = user.name.get()?;
    let company = user.company.get().and_then(|company| company.name.get());
    Some(company.map_or(name.clone(), |company| format!("{name} at {company}")))
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
    fn session_is_shown_with_key_id_status_and_creator() {
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
    fn no_value_looks_like_another_message() {
        let mut message = received("{\"status\":\"a\\nb\"}\nchat-session.missed");
        message.routing_key = "a\u{202e}b\n".into();
        let clock = Clock::at("UTC", "2026-01-01T00:00:00Z");
        let text = readable(&message, true, &clock);
        assert!(text.starts_with("a\\u{202e}b\\n  "), "{text:?}");
        assert!(text.lines().skip(1).all(|line| line.starts_with("    ")));
        assert!(text.ends_with("\n    chat-session.missed\n"), "{text}");
    }

    #[test]
    fn json_is_one_line_with_the_unchanged_body() {
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
