//! `serve`: runs the bridge.

use clap::Args;

use super::failure::failed;
use super::{Exit, Layering};

const AFTER_HELP: &str = "\
SIGTERM or SIGINT: stop listening, publish what can be published, exit within shutdown.grace; a \
second one ends at once. SIGHUP: read the configuration again.

Example:
  deskbridge serve --config config/deskbridge.toml";

/// Arguments of `serve`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {}

/// Runs the bridge until it is told to stop.
pub fn run(layering: &Layering, _: &Arguments) -> anyhow::Result<Exit> {
    let loaded = layering.load_to_run()?;
    // TO WIRE: start logging (`telemetry::logging::init(&loaded.config.telemetry)`), one warning for
    // each of `loaded.awaited`, then `bridge::run(loaded, layering.layers())`; `layers` loads anew
    // at SIGHUP.
    let _ = &loaded.awaited;
    Err(failed(
        "running the bridge",
        "the bridge is not wired yet",
        "`deskbridge check`",
    ))
}
