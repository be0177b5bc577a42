//! `[rabbitmq]` and `[retry]`: the connection to the broker, publishing and retries.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::sources::Secret;
use super::units::{Quantity as _, Size, Span};

/// Default of `rabbitmq.urls`.
const URL: &str = "amqp://guest:guest@localhost:5672/%2f";

/// The connection to the broker, and limits for publishing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RabbitMq {
    /// Brokers to try in turn, such as `amqp://user:password@host:5672/%2f` or `amqps://…`.
    // Serialization masks credentials, so the schema's default is given separately.
    #[serde(serialize_with = "super::broker_url::serialize")]
    #[schemars(extend("default" = [URL]))]
    pub urls: Vec<Secret>,
    /// A file with the URLs, one per line or separated by commas.
    #[serde(serialize_with = "super::paths::serialize_one")]
    pub url_file: Option<PathBuf>,
    /// The file that `urls` were read from, unless a stronger layer sets `urls`.
    #[serde(skip)]
    pub urls_from: Option<PathBuf>,
    /// URL of the management API, used by `check`; empty: not used.
    #[serde(serialize_with = "super::http_url::serialize")]
    pub management_url: Secret,
    /// A file with the URL of the management API.
    #[serde(serialize_with = "super::paths::serialize_one")]
    pub management_url_file: Option<PathBuf>,
    /// Whether the bridge declares exchanges and queues or only verifies them.
    pub topology: TopologyMode,
    /// Maximum time for TCP connect, TLS and AMQP handshake together.
    #[serde(with = "Span")]
    pub connect_timeout: Duration,
    /// AMQP heartbeat; a broker that is silent for twice as long counts as disconnected.
    #[serde(with = "Span")]
    pub heartbeat: Duration,
    /// A route without a confirm for this long becomes stalled (`stuck` in `/status`).
    #[serde(with = "Span")]
    pub confirm_timeout: Duration,
    /// First delay between connection attempts.
    #[serde(with = "Span")]
    pub reconnect_delay_min: Duration,
    /// Maximum delay between connection attempts.
    #[serde(with = "Span")]
    pub reconnect_delay_max: Duration,
    /// Maximum number of messages published and not yet confirmed.
    pub in_flight_max: usize,
    /// Maximum size of their bodies together, in bytes; a larger message is published alone.
    #[serde(with = "Size")]
    pub in_flight_bytes_max: u64,
    /// The broker's `max_message_size`, in bytes; larger messages are dead-lettered without a body.
    #[serde(with = "Size")]
    pub message_bytes_max: u64,
    /// TLS settings for `amqps` URLs.
    pub tls: Tls,
}

/// Whether the bridge declares exchanges and queues or only verifies them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(rename_all = "lowercase")]
pub enum TopologyMode {
    /// Declare what is missing at every connect.
    #[default]
    Declare,
    /// Declare nothing; report what is missing.
    Verify,
}

/// TLS settings for `amqps` URLs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// Certificate authorities (PEM); those of the system if absent.
    #[serde(serialize_with = "super::paths::serialize_one")]
    pub ca_file: Option<PathBuf>,
    /// The bridge's client certificate chain (PEM).
    #[serde(serialize_with = "super::paths::serialize_one")]
    pub cert_file: Option<PathBuf>,
    /// Private key of the client certificate (PEM, PKCS#8).
    #[serde(serialize_with = "super::paths::serialize_one")]
    pub key_file: Option<PathBuf>,
}

impl Default for RabbitMq {
    fn default() -> Self {
        Self {
            urls: vec![Secret::new(URL)],
            url_file: None,
            urls_from: None,
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

/// Delays and attempts for a message that the broker rejected.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// First delay before a rejected message is published again.
    #[serde(with = "Span")]
    pub delay_min: Duration,
    /// Maximum delay between two attempts.
    #[serde(with = "Span")]
    pub delay_max: Duration,
    /// Maximum number of publish attempts, the first included; then it becomes a dead letter.
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
