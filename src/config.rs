//! What an operator can tune: one small struct a section, with the defaults of the contract.
//!
//! [`Config::load`] (`load`) reads the layers (`layers`, `file`), merges them, reads the tree into the
//! structs (`reader`), puts the contents of secret files in (`secrets`) and looks at the whole
//! (`validation`). `schema` tells all keys to editors and tools. Only `layers`, `file`, `secrets`
//! and `paths` touch files. All findings come at once, and none repeats a value: any could be a secret.

pub mod broker_url;
mod environment;
mod file;
pub mod finding;
pub mod http;
pub mod http_url;
pub mod journal;
pub mod layers;
mod load;
mod merging;
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
mod url_text;
mod validation;

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use load::Loaded;
pub use schema::schema;

/// The whole effective configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The public listener.
    pub http: http::Http,
    /// The operators' listener.
    pub admin: http::Admin,
    /// Who may post, by the name in the URL.
    pub sources: BTreeMap<String, sources::Source>,
    /// The broker and how to publish to it.
    pub rabbitmq: rabbitmq::RabbitMq,
    /// Exchange and key by status.
    pub routing: routing::Routing,
    /// Where events wait that nobody has subscribed to.
    pub unrouted: routing::Unrouted,
    /// Where rejected and refused events go.
    pub dead_letter: routing::DeadLetter,
    /// When a refused message is published again.
    pub retry: rabbitmq::Retry,
    /// The disk.
    pub journal: journal::Journal,
    /// Consumer queues to declare.
    pub queues: Vec<queues::Queue>,
    /// How to stop.
    pub shutdown: Shutdown,
    /// Logs.
    pub telemetry: telemetry::Telemetry,
}

/// How to stop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Shutdown {
    /// From SIGTERM to the exit, at most.
    #[serde(with = "units")]
    #[schemars(with = "units::Span")]
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
mod default_file;
#[cfg(test)]
mod tests;
