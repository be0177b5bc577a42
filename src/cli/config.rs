//! `config`: prints the effective configuration with masked secrets, or the JSON Schema of a file.

use std::fmt::Write;

use anyhow::Context;
use clap::{Args, Subcommand};
use deskbridge::config::schema;
use deskbridge::foreign;
use toml::Value;

use super::output::{print_as, print_document};
use super::{ConfigArguments, Exit};

const AFTER_HELP: &str = "\
Examples:
  deskbridge config show --json
  deskbridge config schema > deskbridge.schema.json";

const SHOW_AFTER_HELP: &str = "\
Prints every key with its effective value and where the value comes from. Secrets are masked.

Example:
  DESKBRIDGE__HTTP__SESSIONS_MAX=500 deskbridge config show";

const SCHEMA_AFTER_HELP: &str = "\
Prints the JSON Schema (draft 2020-12) of a configuration file: every key with its description, default and \
permitted values. With it, an editor completes keys and marks mistakes in the TOML file: put \
`#:schema deskbridge.schema.json` into the first line of the file.

Example:
  deskbridge config schema > config/deskbridge.schema.json";

/// Arguments of `config`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print every key with its effective value and where the value comes from
    #[command(after_help = SHOW_AFTER_HELP)]
    Show(ShowArguments),
    /// Print the JSON Schema of a configuration file
    #[command(after_help = SCHEMA_AFTER_HELP)]
    Schema(ConfigArguments),
}

#[derive(Debug, Args)]
struct ShowArguments {
    #[command(flatten)]
    layering: ConfigArguments,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

/// Prints the configuration or the schema.
pub fn run(layering: &ConfigArguments, arguments: &Arguments) -> anyhow::Result<Exit> {
    match &arguments.command {
        ConfigCommand::Show(arguments) => show(layering, arguments),
        // The schema does not depend on the configuration; every command accepts the flags.
        ConfigCommand::Schema(_) => print_document(&schema()),
    }
}

fn show(layering: &ConfigArguments, show: &ShowArguments) -> anyhow::Result<Exit> {
    let loaded = layering.clone().and(&show.layering).load()?;
    let values = Value::try_from(&loaded.config).context("writing the configuration")?;
    let mut lines = Vec::new();
    flatten("", &values, &mut lines);
    let mut output = String::new();
    for (key, value) in lines {
        let origin = loaded.origins.get(&key).map_or("default", String::as_str);
        if show.json {
            let line = serde_json::json!({ "key": key, "value": value, "origin": origin });
            writeln!(output, "{line}")?;
        } else {
            let line = format!("{:<60} # {origin}", format!("{key} = {value}"));
            writeln!(output, "{}", foreign::line(&line))?;
        }
    }
    print_as(show.json, &output)?;
    Ok(Exit::Done)
}

fn flatten<'v>(path: &str, value: &'v Value, lines: &mut Vec<(String, &'v Value)>) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                flatten(&path, value, lines);
            }
        }
        Value::Array(values) if values.iter().any(Value::is_table) => {
            for (index, value) in values.iter().enumerate() {
                flatten(&format!("{path}[{index}]"), value, lines);
            }
        }
        _ => lines.push((path.to_owned(), value)),
    }
}
