//! `[http]` and `[admin]`: the two listeners and their limits.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The public listener.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Address and port.
    pub listen: SocketAddr,
    /// Largest body of a webhook, in bytes.
    pub body_bytes_max: u64,
    /// Most sessions of one webhook.
    pub sessions_max: usize,
    /// From the first byte of a request to the end of its head.
    pub header_timeout: Duration,
    /// From the end of the head to the end of the body.
    pub body_timeout: Duration,
    /// Open connections.
    pub connections_max: usize,
    /// Bytes of all bodies held in memory at once.
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
            connections_max: 1024,
            buffered_bytes_max: 24 << 20,
        }
    }
}

/// The operators' listener.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Address and port.
    pub listen: SocketAddr,
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: ([127, 0, 0, 1], 9090).into() }
    }
}
