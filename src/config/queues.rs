//! `[[queues]]`: consumer queues that the bridge declares.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::{Optional, Size, Span};

/// One consumer queue: a quorum queue that dead-letters to the dead-letter exchange.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name", "keys"]))]
#[schemars(rename = "Queue")]
pub struct QueueConfig {
    /// Name of the queue.
    pub name: String,
    /// Exchange to bind to; the default exchange of `[routing]` if absent.
    pub exchange: Option<String>,
    /// Binding keys: `*` matches one word, `#` any number of words.
    pub keys: Vec<String>,
    /// Maximum number of deliveries before a message is dead-lettered; with a `retry_delay`, the
    /// maximum number of rejections.
    pub delivery_limit: u32,
    /// Message TTL; without it, messages do not expire.
    #[serde(with = "Optional::<Span>")]
    #[schemars(with = "Span")]
    pub ttl: Option<Duration>,
    /// Maximum number of messages; a full queue rejects messages (`reject-publish`).
    pub messages_max: Option<u64>,
    /// Maximum size in bytes; a full queue rejects messages (`reject-publish`).
    #[serde(with = "Optional::<Size>")]
    #[schemars(with = "Size")]
    pub bytes_max: Option<u64>,
    /// Deliver to one consumer at a time, so that order is kept.
    pub single_active_consumer: bool,
    /// Delay before a rejected message is delivered again; without it, it is dead-lettered at once.
    #[serde(with = "Optional::<Span>")]
    #[schemars(with = "Span")]
    pub retry_delay: Option<Duration>,
}

impl QueueConfig {
    /// The exchanges of a queue with a `retry_delay` (below RabbitMQ 4.3): one that receives the
    /// messages that consumers reject, one that delays them, and one that routes them back to the
    /// queue. The first two are queues too.
    #[must_use]
    pub fn satellites(&self) -> [String; 3] {
        ["rejected", "retry", "retried"].map(|kind| format!("{}.{kind}", self.name))
    }
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            exchange: None,
            keys: Vec::new(),
            delivery_limit: 5,
            ttl: None,
            messages_max: None,
            bytes_max: None,
            single_active_consumer: false,
            retry_delay: None,
        }
    }
}
