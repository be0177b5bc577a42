//! `asyncapi`: prints the AsyncAPI document of what the bridge publishes.

use clap::Args;
use deskbridge::asyncapi::{document, strict};
use deskbridge::ops::{broker_settings, routing};

use super::output::print_document;
use super::{ConfigArguments, Exit};

const AFTER_HELP: &str = "\
Prints an AsyncAPI 3.0 document (JSON, which YAML tools read too) with AMQP bindings, generated from the \
effective configuration: brokers without user and password, exchanges and routing keys by status, messages \
with headers and bodies, dead letters, and the queues that hold them. It does not connect to the broker and \
does not need the secrets of sources.

--strict prints the document for code generators: all session messages have the same body, in which every \
field has the type that DeskDirector's interface defines (as in `deskbridge schema --strict`), and dead letters have no body.

Examples:
  deskbridge asyncapi --config config/deskbridge.toml > deskbridge.asyncapi.json
  deskbridge asyncapi --strict > deskbridge.strict.asyncapi.json";

/// Arguments of `asyncapi`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    /// Print the document for code generators: no field has another type than DeskDirector's interface defines
    #[arg(long)]
    strict: bool,
}

/// Prints the document.
pub fn run(layering: &ConfigArguments, arguments: &Arguments) -> anyhow::Result<Exit> {
    // Findings about sources do not matter: the document does not contain them.
    let config = layering.peek_at(|key| key != "sources" && !key.starts_with("sources."))?;
    let settings = broker_settings(&config)?;
    let document = document(&config, &routing(&config)?, &settings.urls);
    print_document(&if arguments.strict {
        strict(document)
    } else {
        document
    })
}
