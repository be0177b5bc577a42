//! Every element of a body becomes one event with exactly its own bytes, valid or rejected. A body
//! that is not JSON becomes one event with the whole body. [`json`](super::json) computes the
//! expected result independently.

use std::sync::Arc;

use bytes::Bytes;
use deskbridge::webhook::signature::Keys;
use deskbridge::webhook::split::split;
use deskbridge::webhook::{Content, DeadLetterReason, Envelope, Event, Fields, Webhook};
use jiff::Timestamp;
use ring::digest::{SHA256, digest};
use uuid::Uuid;

use super::json::{self, Expected};

const SESSIONS_MAX: usize = 12;
const SOURCE: &str = "fuzz";

/// Splits a body of a source without signatures; `None` if it has too many elements.
#[must_use]
pub fn webhook(body: &[u8], sessions_max: usize) -> Option<Webhook> {
    let envelope = Envelope {
        webhook_id: Uuid::nil(),
        source: Arc::from(SOURCE),
        received_at: Timestamp::UNIX_EPOCH,
        traceparent: None,
        tracestate: None,
    };
    let signature = Keys::Unsigned.read::<&[u8]>([]).ok()?;
    let body = Bytes::copy_from_slice(body);
    let verified = Keys::Unsigned.verify(&signature, body).ok()?;
    split(verified, envelope, sessions_max).ok()
}

/// Checks how the bridge splits a body.
///
/// # Panics
/// If the result differs from RFC 8259 and the expected split.
pub fn check(body: &[u8]) {
    let webhook = webhook(body, SESSIONS_MAX);
    let elements = match json::expected(body, SESSIONS_MAX) {
        Expected::TooMany => return assert!(webhook.is_none(), "more than are allowed"),
        Expected::Malformed => {
            let webhook = webhook.expect("malformed, not too many");
            let reject = webhook.malformed().expect("malformed");
            assert!(!reject.detail.is_empty());
            assert_eq!(webhook.events.len(), 1);
            return check_event(&webhook.events[0], 0, body, None);
        }
        Expected::Elements(elements) => elements,
    };
    let webhook = webhook.expect("not too many");
    assert!(webhook.malformed().is_none(), "{webhook:?}");
    assert_eq!(webhook.events.len(), elements.len());
    for ((index, event), range) in (0..).zip(&webhook.events).zip(elements) {
        let element = &body[range];
        check_value(element, event);
        check_event(event, index, element, fields(element).as_ref());
    }
}

fn check_event(event: &Event, index: u32, bytes: &[u8], fields: Option<&Fields>) {
    assert_eq!(event.index, index);
    assert_eq!(&*event.body, bytes);
    let (session, found) = match &event.content {
        Content::Session(found) => (&*found.session, Some(found)),
        Content::Reject(reject) => {
            assert!((1..=1024).contains(&reject.detail.len()), "{reject:?}");
            assert!(matches!(
                reject.reason,
                DeadLetterReason::Invalid | DeadLetterReason::Malformed
            ));
            ("", None)
        }
    };
    assert_eq!(found, fields);
    assert_eq!(event.message_id, message_id(session, bytes));
}

/// If `serde_json::Value` can represent the element, it has the same id and status.
fn check_value(element: &[u8], event: &Event) {
    let value: Option<serde_json::Value> = serde_json::from_slice(element).ok();
    if let (Some(value), Content::Session(fields)) = (value, &event.content) {
        assert_eq!(value["id"], *fields.session);
        assert_eq!(value["status"], *fields.status);
    }
}

fn message_id(session: &str, body: &[u8]) -> Uuid {
    let mut named = Vec::new();
    for part in [SOURCE, session] {
        named.extend(u32::try_from(part.len()).unwrap_or_default().to_be_bytes());
        named.extend(part.as_bytes());
    }
    named.extend(body);
    let mut first = [0; 16];
    first.copy_from_slice(&digest(&SHA256, &named).as_ref()[..16]);
    Uuid::new_v8(first)
}

/// The routing fields of an element; `None` if the element is invalid.
fn fields(element: &[u8]) -> Option<Fields> {
    let members = json::members(element)?;
    if json::depth(element) > 128 {
        return None;
    }
    let id = String::from_utf16(&json::string(only(&members, "id")?)?).ok()?;
    let status = json::string(only(&members, "status")?)?;
    (1..=255).contains(&id.len()).then(|| Fields {
        session: id.into(),
        status: String::from_utf16_lossy(&status),
        attributes: [
            last(&members, "type").and_then(text),
            last(&members, "pastStatus")
                .and_then(json::last_element)
                .and_then(text),
            company(&members),
        ],
    })
}

type Members<'a> = [(Vec<u16>, &'a [u8])];

fn company(members: &Members) -> Option<String> {
    let creator = json::members(last(members, "creator")?)?;
    let company = json::members(last(&creator, "company")?)?;
    text(last(&company, "identifier")?)
}

fn text(value: &[u8]) -> Option<String> {
    json::string(value).map(|units| String::from_utf16_lossy(&units))
}

fn named<'a>(members: &Members<'a>, name: &str) -> Vec<&'a [u8]> {
    let named = members
        .iter()
        .filter(|(key, _)| key.iter().copied().eq(name.encode_utf16()));
    named.map(|(_, value)| *value).collect()
}

fn last<'a>(members: &Members<'a>, name: &str) -> Option<&'a [u8]> {
    named(members, name).pop()
}

fn only<'a>(members: &Members<'a>, name: &str) -> Option<&'a [u8]> {
    let values = named(members, name);
    (values.len() == 1).then(|| values[0])
}
