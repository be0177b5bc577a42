//! The queue that is browsed.

use crate::config::Config;
use crate::ops::broker_settings;
use crate::rabbitmq::ConnectConfig;

/// The queue to browse, with the configuration and the settings to connect to its broker.
#[derive(Debug, Clone)]
pub struct QueueTarget {
    pub config: Config,
    pub queue: String,
    pub(super) settings: ConnectConfig,
    pub(super) is_forced: bool,
}

impl QueueTarget {
    /// The given queue, otherwise the dead-letter queue. With `is_forced`, it is browsed even if
    /// that uses up deliveries of its messages.
    ///
    /// # Errors
    /// If a URL of the configuration is not valid.
    pub fn new(config: Config, queue: Option<&str>, is_forced: bool) -> anyhow::Result<Self> {
        Ok(Self {
            queue: queue.unwrap_or(&config.dead_letter.exchange).to_owned(),
            settings: broker_settings(&config)?,
            config,
            is_forced,
        })
    }
}
