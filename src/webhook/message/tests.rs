use super::*;
use crate::webhook::samples;
use crate::webhook::split::split;

fn route() -> Arc<Route> {
    Arc::new(Route {
        exchange: "chats".into(),
        routing_key: "key".into(),
    })
}

fn message(body: impl Into<Bytes>) -> Message {
    Message::of(&samples::event(body), route(), "completed")
}

fn letter(reason: DeadLetterReason) -> DeadLetter {
    DeadLetter {
        reason,
        detail: "no queue is bound".into(),
        at: "2026-11-22T04:05:06.7Z".parse().unwrap(),
        attempts: 12,
        original: Arc::new(Route {
            exchange: "chats".into(),
            routing_key: "was".into(),
        }),
    }
}

/// Name and value of every header; an integer without quotes.
fn shown(message: &Message) -> Vec<String> {
    let show = |(name, header): &(&str, Header)| match header {
        Header::Text(text) => format!("{name}: {text:?}"),
        Header::Integer(number) => format!("{name}: {number}"),
    };
    message.headers.iter().map(show).collect()
}

fn text<'m>(message: &'m Message, name: &str) -> Option<&'m str> {
    message
        .headers
        .iter()
        .find_map(|(known, header)| match header {
            Header::Text(text) if *known == name => Some(text.as_str()),
            _ => None,
        })
}

#[test]
fn session_has_all_properties_and_headers() {
    let mut envelope = samples::envelope();
    envelope.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
    envelope.tracestate = Some("congo=t61rcWkgMzE".into());
    let webhook = split(samples::verified(samples::COMPLETED), envelope, 1).unwrap();
    let event = &webhook.events[0];
    let message = Message::of(event, route(), "completed");
    assert_eq!(
        shown(&message),
        [
            r#"source: "acme""#,
            r#"session-id: "1530162945-9852""#,
            r#"status: "completed""#,
            r#"session-type: "request""#,
            r#"previous-status: "handled""#,
            r#"webhook-id: "00000000-0000-0000-0000-000000000007""#,
            "webhook-index: 0",
            r#"received-at: "2026-11-22T01:02:03.456Z""#,
            r#"traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01""#,
            r#"tracestate: "congo=t61rcWkgMzE""#,
        ]
    );
    assert_eq!(message.route, route());
    assert_eq!(message.message_id, event.message_id);
    assert_eq!(message.correlation_id.as_deref(), Some("1530162945-9852"));
    assert_eq!(message.message_type, "chat-session.completed");
    assert_eq!(message.timestamp_seconds, 1_795_309_323);
    assert_eq!(message.body, samples::COMPLETED[4..1541]);
}

#[test]
fn missing_fields_have_no_header() {
    let event = &samples::webhook(r#"[7,{"id":"a","status":"Odd","type":1}]"#).events[1];
    assert_eq!(
        shown(&Message::of(event, route(), "unknown")),
        [
            r#"source: "acme""#,
            r#"session-id: "a""#,
            r#"status: "Odd""#,
            r#"webhook-id: "00000000-0000-0000-0000-000000000007""#,
            "webhook-index: 1",
            r#"received-at: "2026-11-22T01:02:03.456Z""#,
        ]
    );
}

#[test]
fn reject_has_no_session() {
    let event = samples::event("[null]");
    let message = Message::of(&event, route(), "invalid");
    assert_eq!(message.correlation_id, None);
    assert_eq!(message.message_type, "chat-session.invalid");
    assert_eq!(message.body, "null");
    let names: Vec<_> = message.headers.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        names,
        ["source", "webhook-id", "webhook-index", "received-at"]
    );
}

#[test]
fn text_is_cut_to_255_bytes_at_a_character() {
    for (status, expected) in [
        ("s".repeat(255), "s".repeat(255)),
        ("s".repeat(256), "s".repeat(255)),
        ("s".repeat(200_000), "s".repeat(255)),
        ("é".repeat(128), "é".repeat(127)),
        ("日".repeat(86), "日".repeat(85)),
        (String::new(), String::new()),
    ] {
        let message = message(format!(r#"{{"id":"a","status":"{status}"}}"#));
        assert_eq!(text(&message, "status"), Some(expected.as_str()));
    }
    let message = message(r#"{"id":"a","status":"\ud800 \u00e9"}"#);
    assert_eq!(text(&message, "status"), Some("\u{fffd} é"));
}

#[test]
fn dead_letter_keeps_everything_and_adds_its_reason() {
    let event = samples::event(samples::COMPLETED);
    let of = Message::of(&event, route(), "completed");
    for reason in DeadLetterReason::ALL
        .into_iter()
        .filter(|reason| *reason != DeadLetterReason::TooLarge)
    {
        let mut dead = Message::dead_letter(&event, route(), "completed", &letter(reason), 42);
        let added = dead.headers.split_off(of.headers.len());
        assert_eq!(dead, of);
        dead.headers = added;
        assert_eq!(
            shown(&dead),
            [
                &format!("dead-letter-reason: {:?}", reason.as_str()),
                r#"dead-letter-detail: "no queue is bound""#,
                r#"dead-letter-at: "2026-11-22T04:05:06.700Z""#,
                r#"original-exchange: "chats""#,
                r#"original-routing-key: "was""#,
                "attempts: 12",
            ]
        );
    }
}

#[test]
fn oversized_dead_letter_has_event_number_not_body() {
    let event = samples::event(samples::COMPLETED);
    let letter = letter(DeadLetterReason::TooLarge);
    let dead = Message::dead_letter(&event, route(), "completed", &letter, 42);
    assert!(dead.body.is_empty());
    assert_eq!(
        dead.headers.last(),
        Some(&("journal-event", Header::Integer(42)))
    );
    assert_eq!(text(&dead, "dead-letter-reason"), Some("too-large"));
    assert_eq!(dead.message_id, event.message_id);
}

#[test]
fn detail_is_cut_to_a_kibibyte() {
    let letter = DeadLetter {
        detail: "é".repeat(600),
        ..letter(DeadLetterReason::Nacked)
    };
    let event = samples::event(samples::COMPLETED);
    let dead = Message::dead_letter(&event, route(), "completed", &letter, 42);
    assert_eq!(
        text(&dead, "dead-letter-detail"),
        Some("é".repeat(512).as_str())
    );
}

/// The header frame must fit into the broker's smallest `frame_max`, whatever the sender,
/// the operator and the broker have written.
#[test]
fn properties_and_headers_never_exceed_a_frame() {
    let long = "x".repeat(5000);
    let mut envelope = samples::envelope();
    envelope.source = Arc::from(long.as_str());
    envelope.traceparent = Some(long.clone());
    envelope.tracestate = Some(long.clone());
    let body = format!(
        r#"{{"id":"{}","status":"{long}","type":"{long}","pastStatus":["{long}"]}}"#,
        &long[..255]
    );
    let webhook = split(samples::verified(body), envelope, 1).unwrap();
    let name: Arc<str> = Arc::from(long.as_str());
    let original = Arc::new(Route {
        exchange: Arc::clone(&name),
        routing_key: name,
    });
    let letter = DeadLetter {
        detail: long.clone(),
        original,
        ..letter(DeadLetterReason::TooLarge)
    };
    let dead = Message::dead_letter(&webhook.events[0], route(), &long, &letter, i64::MAX);

    let value = |header: &Header| match header {
        Header::Text(text) => 4 + text.len(),
        Header::Integer(_) => 8,
    };
    let headers: usize = dead
        .headers
        .iter()
        .map(|(name, header)| 1 + name.len() + 1 + value(header))
        .sum();
    let properties = 5 * 256 + 64;
    assert_eq!(dead.headers.len(), 17);
    assert_eq!(dead.message_type.len(), 255);
    assert!(headers + properties < 8192, "{headers} + {properties}");
}
