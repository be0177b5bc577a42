//! `[routing]`, `[unrouted]` and `[dead_letter]`: exchanges and keys.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Exchange and key by status.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Routing {
    /// Exchange of every status without one of its own.
    pub exchange: String,
    /// Key template of every status without one of its own.
    pub routing_key: String,
    /// What differs, by status.
    pub statuses: BTreeMap<String, Status>,
}

/// What differs for one status.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Status {
    /// Its exchange.
    pub exchange: Option<String>,
    /// Its key template.
    pub routing_key: Option<String>,
}

impl Default for Routing {
    fn default() -> Self {
        Self {
            exchange: "chat-sessions".into(),
            routing_key: "chat-session.{status}".into(),
            statuses: BTreeMap::new(),
        }
    }
}

/// Where events wait that nobody has subscribed to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Unrouted {
    /// Alternate exchange, and the queue of the same name; empty: none, such events are returned.
    pub exchange: String,
    /// How long an event waits there.
    #[serde(with = "super::units")]
    #[schemars(with = "super::units::Span")]
    pub ttl: Duration,
    /// How much waits there; the oldest go first.
    #[serde(with = "super::units")]
    #[schemars(with = "super::units::Size")]
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

/// Where rejected and refused events go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DeadLetter {
    /// Exchange, and the queue of the same name.
    pub exchange: String,
}

impl Default for DeadLetter {
    fn default() -> Self {
        Self {
            exchange: "chat-sessions.dead-letter".into(),
        }
    }
}
