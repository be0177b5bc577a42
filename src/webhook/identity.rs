//! The name of an event: the same for the same event, however often it is sent, over restarts,
//! retries and replays. Depends on nothing but source, session id and bytes.

use aws_lc_rs::digest::{Context, SHA256};
use uuid::Uuid;

use super::Event;

/// The `message_id` of an element: a UUID (version 8) of the first 16 bytes of SHA-256 over
/// source, session id (empty for a reject) and body, the first two each behind their length in
/// bytes as u32 big-endian.
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

/// The `message_id` an event must have, whatever it carries now.
#[must_use]
pub fn of(event: &Event) -> Uuid {
    let session = event.session().unwrap_or_default();
    message_id(&event.envelope.source, session, &event.body)
}

/// Whether an event still is what its `message_id` says. A stored one that is not is damaged.
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

    /// Computed with another language's SHA-256; they stand in the README and never change.
    #[test]
    fn ids_are_those_that_were_promised() {
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
    fn source_and_session_do_not_run_into_each_other() {
        check("ac", "me", b"{}", "88d60fe4-965f-88c2-b87b-53fa317a05d5");
        check("acm", "e", b"{}", "5143006b-290a-85e4-8ab3-bb97e9d8fc08");
    }

    #[test]
    fn an_event_with_one_flipped_bit_is_not_intact() {
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
    fn the_position_in_the_array_is_no_part_of_the_id() {
        let events = samples::webhook(&br#"[{"id":"a","status":"b"},{"id":"a","status":"b"}]"#[..]);
        assert_eq!(events.events[0].message_id, events.events[1].message_id);
    }
}
