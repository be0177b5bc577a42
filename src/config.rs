//! The configuration: one struct per section, with every key, its default and its validation.
//!
//! `Config::load` (`load`) reads and merges the layers (`layers`, `file`, `assignment`),
//! deserializes the merged tree into the structs (`reader`), inserts the contents of secret files
//! (`secrets`) and validates the result (`validation`). `schema` describes all keys to editors and tools. Only
//! `layers`, `file`, `secrets` and `paths` access files. All findings are reported at once. No
//! finding repeats a value that may be a secret.

mod assignment;
pub mod broker_url;
mod environment;
mod file;
pub mod finding;
pub mod http;
pub mod http_url;
pub mod journal;
pub mod layers;
mod load;
pub mod networks;
pub mod paths;
pub mod queues;
pub mod rabbitmq;
mod reader;
pub mod routing;
mod schema;
pub mod secrets;
pub mod sources;
pub mod telemetry;
pub mod units;
pub mod url_text;
mod validation;

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use load::{Loaded, origin};
pub use schema::schema;
use units::{Quantity as _, Span};

/// The effective configuration: all layers merged, defaults filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The public listener, which receives webhooks.
    pub http: http::Http,
    /// The admin listener: health, status and metrics.
    pub admin: http::AdminConfig,
    /// DeskDirector instances that may post, by the name in the URL.
    pub sources: BTreeMap<String, sources::SourceConfig>,
    /// The connection to the broker, and limits for publishing.
    pub rabbitmq: rabbitmq::RabbitMq,
    /// Exchange and routing key of each status.
    pub routing: routing::RoutingConfig,
    /// Alternate exchange and queue for events that match no binding.
    pub unrouted: routing::Unrouted,
    /// Exchange and queue for dead letters.
    pub dead_letter: routing::DeadLetterExchange,
    /// Delays and attempts for a message that the broker rejected.
    pub retry: rabbitmq::Retry,
    /// The journal's directory, size limits and retention.
    pub journal: journal::JournalConfig,
    /// Consumer queues that the bridge declares.
    pub queues: Vec<queues::QueueConfig>,
    /// Limits for stopping.
    pub shutdown: Shutdown,
    /// Log format and level.
    pub telemetry: telemetry::Telemetry,
}

/// Limits for stopping.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Shutdown {
    /// Maximum time from SIGTERM to the exit of the process.
    #[serde(with = "Span")]
    pub grace: Duration,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(8),
        }
    }
}

#[cfg(test)]
mod tests;
