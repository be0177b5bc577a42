//! `[http]` and `[admin]`: the two listeners and their limits.

use std::net::SocketAddr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use super::networks::Network;

/// What an address and a port look like, as a regular expression (ECMA-262).
const ADDRESS_PATTERN: &str =
    r"^\s*(\[[0-9A-Fa-f:.]+(%[0-9]+)?\]|[0-9]{1,3}(\.[0-9]{1,3}){3}):[0-9]{1,5}\s*$";

/// The public listener.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Address and port.
    #[serde(deserialize_with = "address")]
    #[schemars(extend("pattern" = ADDRESS_PATTERN))]
    pub listen: SocketAddr,
    /// Largest body of a webhook, in bytes.
    #[serde(with = "super::units")]
    #[schemars(with = "super::units::Size")]
    pub body_bytes_max: u64,
    /// Most sessions of one webhook.
    pub sessions_max: usize,
    /// From the first byte of a request to the end of its head.
    #[serde(with = "super::units")]
    #[schemars(with = "super::units::Span")]
    pub header_timeout: Duration,
    /// From the end of the head to the end of the body.
    #[serde(with = "super::units")]
    #[schemars(with = "super::units::Span")]
    pub body_timeout: Duration,
    /// Bytes per second that a body must arrive with after its first five seconds; 0: any pace.
    #[serde(with = "super::units")]
    #[schemars(with = "super::units::Size")]
    pub body_rate_min: u64,
    /// How long a connection is kept without a request; longer than a proxy in front keeps it.
    #[serde(with = "super::units")]
    #[schemars(with = "super::units::Span")]
    pub idle_timeout: Duration,
    /// Open connections.
    pub connections_max: usize,
    /// Open connections of one client address, or of one IPv6 network of 64 bits.
    pub connections_per_client_max: Option<usize>,
    /// Addresses and networks of proxies, which speak for many clients.
    pub trusted_proxies: Vec<Network>,
    /// Bytes of all bodies held in memory at once.
    #[serde(with = "super::units")]
    #[schemars(with = "super::units::Size")]
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

/// The operators' listener.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Address and port.
    #[serde(deserialize_with = "address")]
    #[schemars(extend("pattern" = ADDRESS_PATTERN))]
    pub listen: SocketAddr,
    /// Names it is asked for by, without a port, beside IP addresses and `localhost`.
    pub hosts: Vec<String>,
}

impl Default for Admin {
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
