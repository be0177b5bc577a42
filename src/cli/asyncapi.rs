//! `asyncapi`: the AsyncAPI document of what the bridge publishes.

use clap::Args;
use deskbridge::asyncapi::document;
use deskbridge::config::Config;
use deskbridge::rabbitmq::Settings;
use deskbridge::webhook::routing::Routing;

use super::failure::failed;
use super::output::print_document;
use super::{Exit, Layering};

const AFTER_HELP: &str = "\
Prints an AsyncAPI 3.0 document (JSON, which tools for YAML read too) with AMQP bindings, made of the effective configuration: brokers \
without user and password, exchanges and routing keys by status, messages with headers and bodies, dead \
letters, and the queues that hold them. Asks no broker; secrets of sources are not needed for it.

Example:
  deskbridge asyncapi --config config/deskbridge.toml > deskbridge.asyncapi.json";

/// Arguments of `asyncapi`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {}

/// Prints it.
pub fn run(layering: &Layering, _: &Arguments) -> anyhow::Result<Exit> {
    let config = effective(layering)?;
    let advice = "`deskbridge config show`";
    let settings = Settings::from_config(&config)
        .map_err(|why| failed("reading `rabbitmq.urls`", why, advice))?;
    let routing = Routing::new(&config.routing, &config.dead_letter)
        .map_err(|mut errors| failed("reading the routing keys", errors.swap_remove(0), advice))?;
    print_document(&document(&config, &routing, &settings.urls))
}

/// The configuration, also where nobody may post yet: no source is in the document.
fn effective(layering: &Layering) -> anyhow::Result<Config> {
    match layering.load() {
        Ok(loaded) => Ok(loaded.config),
        Err(mut error) => {
            error
                .findings
                .retain(|finding| finding.key != "sources" && !finding.key.starts_with("sources."));
            if error.findings.is_empty() {
                Ok(layering.peek()?)
            } else {
                Err(error.into())
            }
        }
    }
}
