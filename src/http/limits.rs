//! The limits of the connections of a listener, and the two stages in which it is stopped.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::config::http::Http;

/// Maximum number of connections of operators, their probes and Prometheus.
const ADMIN_CONNECTIONS_MAX: usize = 16;

/// How long bytes are discarded after an answer that was sent before the whole request had arrived.
pub(super) const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

/// The limits of the connections of one listener.
#[derive(Debug, Clone)]
pub struct ConnectionLimits {
    /// Those that can be configured. There are fewer connections than `connections_max` if there are
    /// not enough file descriptors.
    pub config: Http,
    /// How long a client may take to read an answer.
    pub answer_timeout: Duration,
    /// Whether every request counts as verified, so that its connection is never evicted.
    pub(super) never_evict: bool,
}

impl ConnectionLimits {
    /// The limits of the public listener.
    #[must_use]
    pub fn of(config: &Http) -> Self {
        Self {
            config: config.clone(),
            answer_timeout: Duration::from_secs(10),
            never_evict: false,
        }
    }

    /// The limits of the operators' listener.
    #[must_use]
    pub fn of_admin() -> Self {
        let mut limits = Self::of(&Http::default());
        limits.config.connections_max = ADMIN_CONNECTIONS_MAX;
        limits.never_evict = true;
        limits
    }

    /// Maximum number of bytes that are read and discarded after an answer that was sent before the
    /// whole request had arrived.
    pub(super) fn discard_bytes_max(&self) -> u64 {
        self.config.body_bytes_max.saturating_add(1 << 20)
    }
}

/// The two stages in which a server is stopped.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// Stops accepting connections and closes every connection with its next answer.
    pub drain: CancellationToken,
    /// Closes connections without a complete request head; other requests are still answered.
    pub close: CancellationToken,
}
