//! Webhooks for the tests of all modules.

use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::signature::{Keys, Verified};
use super::split::split;
use super::{Envelope, Event, Webhook};

/// The published example: an array with one session, pretty-printed.
pub const COMPLETED: &[u8] = include_bytes!("../../tests/data/completed.json");

/// Bytes of a source that needs no signature.
pub fn verified(body: impl Into<Bytes>) -> Verified<Bytes> {
    let keys = Keys::Unsigned;
    let signature = keys
        .read::<&[u8]>([])
        .expect("an unsigned source needs no signature");
    keys.verify(&signature, body.into())
        .expect("an unsigned source takes every body")
}

/// A request of the source `acme`, at a fixed moment.
pub fn envelope() -> Envelope {
    Envelope {
        webhook_id: Uuid::from_u128(7),
        source: Arc::from("acme"),
        received_at: "2026-11-22T01:02:03.456789Z".parse().expect("a time"),
        traceparent: None,
        tracestate: None,
    }
}

/// A body of the source `acme`, split.
pub fn webhook(body: impl Into<Bytes>) -> Webhook {
    split(verified(body), envelope(), 10_000).expect("at most 10,000 sessions")
}

/// The one event of a body.
pub fn event(body: impl Into<Bytes>) -> Event {
    let [event] = <[Arc<Event>; 1]>::try_from(webhook(body).events).expect("one event");
    Arc::unwrap_or_clone(event)
}
