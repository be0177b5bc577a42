//! Every event gets a route and a message that AMQP can carry. A key template is accepted or
//! refused as defined, values in keys contain no character with a meaning there, and texts are
//! truncated.

use deskbridge::config::Config;
use deskbridge::settings;
use deskbridge::webhook::message::{Header, Message};
use deskbridge::webhook::routing::{Routing, STATUSES};
use deskbridge::webhook::{Content, Event, Fields};

use super::split::webhook;

const PLACEHOLDERS: [&str; 5] = [
    "{status}",
    "{type}",
    "{source}",
    "{previous_status}",
    "{company}",
];

/// Checks an input: a key template, a line feed, and a body.
///
/// # Panics
/// If the key of an event does not follow from the template, or a text is too long.
pub fn check(input: &[u8]) {
    let end = input.iter().position(|byte| *byte == b'\n');
    let (template, body) = input.split_at(end.unwrap_or(input.len()));
    let Ok(template) = std::str::from_utf8(template) else {
        return;
    };
    let mut config = Config::default();
    template.clone_into(&mut config.routing.routing_key);
    let routing = settings::routing(&config);
    let is_sound = fill(template, |_| String::new()).is_some();
    assert_eq!(routing.is_ok(), is_sound, "{template:?}");
    let (Ok(routing), Some(webhook)) = (routing, webhook(body, 100)) else {
        return;
    };
    for event in &webhook.events {
        check_event(&routing, template, event);
    }
}

fn check_event(routing: &Routing, template: &str, event: &Event) {
    let route = routing.route(event);
    let status = routing.routed_status(event);
    if let Content::Session(fields) = &event.content {
        let expected = fill(template, |name| value(name, status, fields)).unwrap_or_default();
        let end = expected.floor_char_boundary(255);
        assert_eq!(*route.routing_key, expected[..end]);
        let is_known = STATUSES.contains(&&*fields.status);
        assert_eq!(status, if is_known { &*fields.status } else { "unknown" });
    }
    let message = Message::of(event, route, status);
    assert_eq!(message.body, event.body);
    assert_eq!(message.message_id, event.message_id);
    assert!(message.message_type.len() <= 255);
    assert!(message.correlation_id.is_none_or(|id| id.len() <= 255));
    for (name, header) in &message.headers {
        if let Header::Text(text) = header {
            assert!(text.len() <= 255, "{name}");
        }
    }
    if let Content::Session(fields) = &event.content {
        let is_status = |(name, header): &&(&str, Header)| {
            *name == "status"
                && matches!(header, Header::Text(text) if fields.status.starts_with(text))
        };
        assert!(message.headers.iter().any(|header| is_status(&header)));
    }
}

fn value(name: &str, status: &str, fields: &Fields) -> String {
    let value = match name {
        "{status}" => Some(status),
        "{source}" => Some("fuzz"),
        "{type}" => fields.attributes[0].as_deref(),
        "{previous_status}" => fields.attributes[1].as_deref(),
        _ => fields.attributes[2].as_deref(),
    };
    let is_plain = |char: &char| char.is_ascii_alphanumeric() || "-_".contains(*char);
    let chars = value.unwrap_or("none").chars();
    chars
        .map(|char| if is_plain(&char) { char } else { '_' })
        .collect()
}

/// A template with its placeholders replaced; `None` if a brace is not part of a placeholder.
fn fill(template: &str, value: impl Fn(&str) -> String) -> Option<String> {
    let mut filled = String::new();
    let mut rest = template;
    while let Some(at) = rest.find(['{', '}']) {
        filled.push_str(&rest[..at]);
        rest = &rest[at..];
        let name = PLACEHOLDERS
            .into_iter()
            .find(|name| rest.starts_with(name))?;
        filled.push_str(&value(name));
        rest = &rest[name.len()..];
    }
    filled.push_str(rest);
    Some(filled)
}
