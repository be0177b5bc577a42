//! `[rabbitmq]` and `[retry]`: the broker, and how to publish to it.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::sources::Secret;

/// Where a broker is unless the configuration says otherwise.
const URL: &str = "amqp://guest:guest@localhost:5672/%2f";

/// The broker and how to publish to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RabbitMq {
    /// Brokers to try in turn, such as `amqp://user:password@host:5672/%2f` or `amqps://…`.
    // A secret is masked when it is written.
    #[serde(serialize_with = "super::broker_url::serialize")]
    #[schemars(extend("default" = [URL]))]
    pub urls: Vec<Secret>,
    /// A file with the URLs, one a line or separated by commas.
    #[serde(serialize_with = "super::paths::serialize_one")]
    pub url_file: Option<PathBuf>,
    /// Management API for `check`; empty: not asked.
    #[serde(serialize_with = "super::http_url::serialize")]
    pub management_url: Secret,
    /// A file with that URL.
    #[serde(serialize_with = "super::paths::serialize_one")]
    pub management_url_file: Option<PathBuf>,
    /// Whether the bridge declares what it needs or only checks it.
    pub topology: TopologyMode,
    /// For the TCP connection and the handshake together.
    #[serde(with = "super::units")]
    #[schemars(with = "super::units::Span")]
    pub connect_timeout: Duration,
    /// AMQP heartbeat.
    #[serde(with = "super::units")]
    #[schemars(with = "super::units::Span")]
    pub heartbeat: Duration,
    /// A route that confirms nothing for that long is stuck.
    #[serde(with = "super::units")]
    #[schemars(with = "super::units::Span")]
    pub confirm_timeout: Duration,
    /// First delay before a new connection.
    #[serde(with = "super::units")]
    #[schemars(with = "super::units::Span")]
    pub reconnect_delay_min: Duration,
    /// Longest delay before a new connection.
    #[serde(with = "super::units")]
    #[schemars(with = "super::units::Span")]
    pub reconnect_delay_max: Duration,
    /// Messages published and not yet confirmed.
    pub in_flight_max: usize,
    /// Their bodies together.
    #[serde(with = "super::units")]
    #[schemars(with = "super::units::Size")]
    pub in_flight_bytes_max: u64,
    /// Larger messages are dead-lettered without a body.
    #[serde(with = "super::units")]
    #[schemars(with = "super::units::Size")]
    pub message_bytes_max: u64,
    /// For `amqps` URLs.
    pub tls: Tls,
}

/// Whether the bridge declares what it needs or only checks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(rename_all = "lowercase")]
pub enum TopologyMode {
    /// Declare what is missing.
    #[default]
    Declare,
    /// Declare nothing; report what is missing.
    Verify,
}

/// For `amqps` URLs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// Certificate authorities (PEM); the system's if absent.
    #[serde(serialize_with = "super::paths::serialize_one")]
    pub ca_file: Option<PathBuf>,
    /// Our certificate chain (PEM).
    #[serde(serialize_with = "super::paths::serialize_one")]
    pub cert_file: Option<PathBuf>,
    /// Its key (PEM, PKCS#8).
    #[serde(serialize_with = "super::paths::serialize_one")]
    pub key_file: Option<PathBuf>,
}

impl Default for RabbitMq {
    fn default() -> Self {
        Self {
            urls: vec![Secret::new(URL)],
            url_file: None,
            management_url: Secret::new(""),
            management_url_file: None,
            topology: TopologyMode::Declare,
            connect_timeout: Duration::from_secs(5),
            heartbeat: Duration::from_secs(10),
            confirm_timeout: Duration::from_secs(10),
            reconnect_delay_min: Duration::from_millis(200),
            reconnect_delay_max: Duration::from_secs(2),
            in_flight_max: 256,
            in_flight_bytes_max: 8 << 20,
            message_bytes_max: 16 << 20,
            tls: Tls::default(),
        }
    }
}

/// When a refused message is published again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// First delay.
    #[serde(with = "super::units")]
    #[schemars(with = "super::units::Span")]
    pub delay_min: Duration,
    /// Longest delay.
    #[serde(with = "super::units")]
    #[schemars(with = "super::units::Span")]
    pub delay_max: Duration,
    /// Times a message is published in all before it becomes a dead letter.
    pub attempts_max: u32,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            delay_min: Duration::from_millis(100),
            delay_max: Duration::from_secs(30),
            attempts_max: 12,
        }
    }
}
