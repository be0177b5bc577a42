//! `[routing]`, `[unrouted]` and `[dead_letter]`: exchanges and routing keys.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::{Quantity as _, Size, Span};

/// Exchange and routing key of each status.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Routing")]
pub struct RoutingConfig {
    /// Topic exchange for every status without its own.
    pub exchange: String,
    /// Routing key template for every status without its own.
    pub routing_key: String,
    /// Overrides by status.
    pub statuses: BTreeMap<String, StatusRouting>,
}

/// Overrides for one status.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Status")]
pub struct StatusRouting {
    /// Topic exchange for this status.
    pub exchange: Option<String>,
    /// Routing key template for this status.
    pub routing_key: Option<String>,
}

impl Default for RoutingConfig {
    fn default() -> Self {
        Self {
            exchange: "chat-sessions".into(),
            routing_key: "chat-session.{status}".into(),
            statuses: BTreeMap::new(),
        }
    }
}

/// Alternate exchange and queue for events that match no binding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Unrouted {
    /// Alternate exchange, and the queue of the same name; empty: none, and the broker returns
    /// unroutable events.
    pub exchange: String,
    /// TTL of an event in this queue.
    #[serde(with = "Span")]
    pub ttl: Duration,
    /// Maximum size of this queue in bytes; beyond it the broker drops the oldest events.
    #[serde(with = "Size")]
    pub bytes_max: u64,
}

impl Default for Unrouted {
    fn default() -> Self {
        Self {
            exchange: "chat-sessions.unrouted".into(),
            ttl: Duration::from_hours(7 * 24),
            bytes_max: 1 << 30,
        }
    }
}

/// Exchange and queue for dead letters: invalid events, and events the broker kept rejecting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "DeadLetter")]
pub struct DeadLetterExchange {
    /// Topic exchange, and the queue of the same name.
    pub exchange: String,
}

impl Default for DeadLetterExchange {
    fn default() -> Self {
        Self {
            exchange: "chat-sessions.dead-letter".into(),
        }
    }
}
