//! `[http]` and `[admin]`: the public and the admin listener, with their limits.

use std::net::SocketAddr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use super::networks::Network;
use super::units::{Quantity as _, Size, Span};

/// Pattern of an IP address and a port for the JSON Schema (ECMA-262).
const ADDRESS_PATTERN: &str =
    r"^\s*(\[[0-9A-Fa-f:.]+(%[0-9]+)?\]|[0-9]{1,3}(\.[0-9]{1,3}){3}):[0-9]{1,5}\s*$";

/// The public listener, which receives webhooks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// IP address and port to listen on.
    #[serde(deserialize_with = "address")]
    #[schemars(extend("pattern" = ADDRESS_PATTERN))]
    pub listen: SocketAddr,
    /// Maximum size of a webhook's body in bytes; a larger one is answered 413.
    #[serde(with = "Size")]
    pub body_bytes_max: u64,
    /// Maximum number of sessions in one webhook; more are answered 413.
    pub sessions_max: usize,
    /// Maximum time from the first byte of a request to the end of its headers.
    #[serde(with = "Span")]
    pub header_timeout: Duration,
    /// Maximum time from the end of the headers to the end of the body.
    #[serde(with = "Span")]
    pub body_timeout: Duration,
    /// Minimum rate of a body in bytes per second, checked after its first 5 s; 0: no minimum.
    #[serde(with = "Size")]
    pub body_rate_min: u64,
    /// How long an idle connection is kept; set it longer than the proxy in front keeps its own.
    #[serde(with = "Span")]
    pub idle_timeout: Duration,
    /// Maximum number of open connections.
    pub connections_max: usize,
    /// Maximum number of open connections per client address, or per /64 network with IPv6.
    pub connections_per_client_max: Option<usize>,
    /// Proxies whose `X-Forwarded-For` is trusted; they have no limit per client.
    pub trusted_proxies: Vec<Network>,
    /// Maximum size of all bodies in memory at once, in bytes.
    #[serde(with = "Size")]
    pub buffered_bytes_max: u64,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: ([0, 0, 0, 0], 8080).into(),
            body_bytes_max: 10 << 20,
            sessions_max: 10_000,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            body_rate_min: 1 << 10,
            idle_timeout: Duration::from_secs(75),
            connections_max: 1024,
            connections_per_client_max: None,
            trusted_proxies: Vec::new(),
            buffered_bytes_max: 24 << 20,
        }
    }
}

/// The admin listener: health, status and metrics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Admin")]
pub struct AdminConfig {
    /// IP address and port to listen on.
    #[serde(deserialize_with = "address")]
    #[schemars(extend("pattern" = ADDRESS_PATTERN))]
    pub listen: SocketAddr,
    /// Accepted names in `Host`, without a port; IP addresses and `localhost` are always accepted.
    pub hosts: Vec<String>,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            listen: ([127, 0, 0, 1], 9180).into(),
            hosts: Vec::new(),
        }
    }
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.trim().parse().map_err(|_| {
        D::Error::custom(
            "expected an IP address and a port such as \"0.0.0.0:8080\" or \"[::]:8080\"",
        )
    })
}
