//! `[[queues]]`: consumer queues the bridge declares.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Exchanges that a queue with a `retry_delay` needs beside it; the first two are queues as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Satellite {
    /// Takes what its consumers reject.
    Rejected,
    /// Lets a message wait before it comes again.
    Retry,
    /// Brings it back.
    Retried,
}

impl Satellite {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Rejected, Self::Retry, Self::Retried];

    /// What it is called, behind the queue's name.
    #[must_use]
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Rejected => ".rejected",
            Self::Retry => ".retry",
            Self::Retried => ".retried",
        }
    }
}

/// One consumer queue: a quorum queue that dead-letters to the dead-letter exchange.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name", "keys"]))]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// Exchange to bind to; the default exchange of `[routing]` if absent.
    pub exchange: Option<String>,
    /// Binding keys.
    pub keys: Vec<String>,
    /// Deliveries before a message is dead-lettered; with a `retry_delay`, rejections.
    pub delivery_limit: u32,
    /// How long a message waits; for ever if absent.
    #[serde(with = "super::units::optional")]
    #[schemars(with = "Option<super::units::Span>")]
    pub ttl: Option<Duration>,
    /// Messages at most; then publishing is refused (`reject-publish`).
    pub messages_max: Option<u64>,
    /// Bytes at most; then publishing is refused.
    #[serde(with = "super::units::optional")]
    #[schemars(with = "Option<super::units::Size>")]
    pub bytes_max: Option<u64>,
    /// One consumer at a time, in order.
    pub single_active_consumer: bool,
    /// How long a rejected message waits before it comes again.
    #[serde(with = "super::units::optional")]
    #[schemars(with = "Option<super::units::Span>")]
    pub retry_delay: Option<Duration>,
}

impl Queue {
    /// The name of one of its satellites.
    #[must_use]
    pub fn satellite(&self, satellite: Satellite) -> String {
        format!("{}{}", self.name, satellite.suffix())
    }
}

impl Default for Queue {
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
