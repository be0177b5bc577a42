//! An event on its way to the broker: properties and headers of the contract.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use uuid::Uuid;

use super::Reason;
use super::routing::Route;

/// One message as it is published: always persistent, mandatory and confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Exchange and routing key.
    pub route: Arc<Route>,
    /// `message_id`.
    pub message_id: Uuid,
    /// `correlation_id`: the session id.
    pub correlation_id: Option<String>,
    /// `type`: `chat-session.<routed status>`, at most 255 bytes.
    pub message_type: String,
    /// `timestamp`: when the webhook was received, in seconds since 1970.
    pub timestamp_seconds: u64,
    /// Headers in order.
    pub headers: Vec<(&'static str, Header)>,
    /// The body, byte for byte.
    pub body: Bytes,
}

/// The value of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Header {
    /// A string, cut to 255 bytes (`dead-letter-detail`: 1 KiB).
    Text(String),
    /// An integer.
    Integer(i64),
}

/// What a dead letter adds to its event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Why.
    pub reason: Reason,
    /// Why, for people; at most 1 KiB.
    pub detail: String,
    /// Since when.
    pub at: Timestamp,
    /// How often it was published before.
    pub attempts: u32,
    /// Where it would have gone.
    pub original: Arc<Route>,
}
