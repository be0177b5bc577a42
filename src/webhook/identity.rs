//! The identity of an event: identical for the same event, however often it is sent, across
//! restarts, retries and replays. Depends only on source, session id and bytes.

use ring::digest::{Context, SHA256};
use uuid::Uuid;

use super::Event;

/// The `message_id` of an element: a UUID (version 8) made of the first 16 bytes of the SHA-256
/// over source, session id (empty for a reject) and body. The first two are each preceded by their
/// length in bytes, as a big-endian `u32`.
#[must_use]
pub fn message_id(source: &str, session: &str, body: &[u8]) -> Uuid {
    let mut hash = Context::new(&SHA256);
    for part in [source, session] {
        let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
        hash.update(&length.to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.update(body);
    let mut first = [0; 16];
    first.copy_from_slice(&hash.finish().as_ref()[..16]);
    Uuid::new_v8(first)
}

/// The `message_id` that an event must have, computed from its content.
#[must_use]
pub fn of(event: &Event) -> Uuid {
    let session = event.session().unwrap_or_default();
    message_id(&event.envelope.source, session, &event.body)
}

/// Whether the content of an event matches its `message_id`. If not, the stored event is damaged.
#[must_use]
pub fn is_intact(event: &Event) -> bool {
    of(event) == event.message_id
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhook::samples;

    fn check(source: &str, session: &str, body: &[u8], expected: &str) {
        assert_eq!(message_id(source, session, body).to_string(), expected);
    }

    /// Computed with the SHA-256 of another language. `docs/consuming.md` lists them; they never change.
    #[test]
    fn ids_match_the_golden_values() {
        check("acme", "", b"", "e6286ad9-eacc-8128-9844-7040c9b71428");
        check("acme", "", b"null", "78847f32-f9a9-89f0-a235-9da56ca86784");
        let body = br#"{"id":"\u65e5\u672c-1","status":"created"}"#;
        check(
            "acmé",
            "日本-1",
            body,
            "3dfd5471-6877-88f3-86cc-c7a4fc2603e0",
        );
        let example = samples::event(samples::COMPLETED).message_id.to_string();
        assert_eq!(example, "53d46ec3-435e-8633-874a-52aaacb9ecc7");
    }

    #[test]
    fn source_and_session_are_hashed_separately() {
        check("ac", "me", b"{}", "88d60fe4-965f-88c2-b87b-53fa317a05d5");
        check("acm", "e", b"{}", "5143006b-290a-85e4-8ab3-bb97e9d8fc08");
    }

    #[test]
    fn event_with_a_flipped_bit_is_not_intact() {
        for body in [samples::COMPLETED, b"[null]", b"nonsense"] {
            let mut event = samples::event(body);
            assert!(is_intact(&event));
            let mut bytes = event.body.to_vec();
            bytes[2] ^= 1;
            event.body = bytes.into();
            assert!(!is_intact(&event));
        }
    }

    #[test]
    fn array_position_does_not_change_the_id() {
        let events = samples::webhook(&br#"[{"id":"a","status":"b"},{"id":"a","status":"b"}]"#[..]);
        assert_eq!(events.events[0].message_id, events.events[1].message_id);
    }
}
