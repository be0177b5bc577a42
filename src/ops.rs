//! What operators do with a bridge and its broker, as a library for the command line.

pub mod check;
pub mod dead_letters;
pub mod failure;
pub mod replay;
pub mod running_bridge;
pub mod status;
pub mod topology;
pub mod why;

use std::time::{Duration, Instant};

use self::failure::failed;
use crate::config::Config;
use crate::journal::{ControlOutbox, ControlRequest, JournalError};
use crate::rabbitmq::ConnectConfig;
use crate::settings;
use crate::webhook::routing::Routing;

/// How long to wait until a running bridge has applied control requests: several of its ticks.
const CONTROL_PATIENCE: Duration = Duration::from_secs(2);

/// A number with its noun: `1 event`, `2 events`.
#[must_use]
pub fn counted(count: impl TryInto<u64>, what: &str) -> String {
    match count.try_into().unwrap_or(u64::MAX) {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    }
}

/// The settings for connections to the broker.
///
/// # Errors
/// If a URL is not valid, or none is configured.
pub fn broker_settings(config: &Config) -> anyhow::Result<ConnectConfig> {
    ConnectConfig::from_config(config)
        .map_err(|why| failed("reading `rabbitmq.urls`", why, "`deskbridge config show`"))
}

/// The routes of the configuration.
///
/// # Errors
/// If the routing keys cannot be read.
pub fn routing(config: &Config) -> anyhow::Result<Routing> {
    settings::routing(config).map_err(|errors| {
        let problems: Vec<_> = errors.iter().map(ToString::to_string).collect();
        failed(
            "reading `routing`",
            problems.join("; "),
            "`deskbridge check`",
        )
    })
}

/// Stores control requests for the bridge's journal writer. Returns whether it has applied them
/// within 2 s; otherwise it does so later, at the latest when it starts.
///
/// # Errors
/// If the journal cannot be written or read.
pub fn leave_requests(
    outbox: &mut ControlOutbox,
    requests: Vec<ControlRequest>,
) -> Result<bool, JournalError> {
    outbox.leave(requests)?;
    let begin = Instant::now();
    while begin.elapsed() < CONTROL_PATIENCE {
        if outbox.is_applied()? {
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(false)
}
