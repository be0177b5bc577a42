//! `config`: shows the effective configuration, secrets masked, or the schema of a file.

use std::fmt::Write;

use anyhow::Context;
use clap::{Args, Subcommand};
use deskbridge::config::schema;
use deskbridge::telemetry::foreign;
use toml::Value;

use super::output::{print, print_document, print_json};
use super::{Exit, Layering};

const AFTER_HELP: &str = "\
Examples:
  deskbridge config show --json
  deskbridge config schema > deskbridge.schema.json";

const SHOW_AFTER_HELP: &str = "\
Prints every key with its value as it takes effect and where it came from. Secrets are masked.

Example:
  DESKBRIDGE__HTTP__SESSIONS_MAX=500 deskbridge config show";

const SCHEMA_AFTER_HELP: &str = "\
Prints the JSON Schema (draft 2020-12) of a configuration file: every key, what it is for, its default, \
what it may be. An editor that knows it completes keys and marks mistakes in the TOML file: put \
`#:schema deskbridge.schema.json` into its first line.

Example:
  deskbridge config schema > config/deskbridge.schema.json";

/// Arguments of `config`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Every value as it takes effect, and where it came from
    #[command(after_help = SHOW_AFTER_HELP)]
    Show(ShowArguments),
    /// JSON Schema of a configuration file
    #[command(after_help = SCHEMA_AFTER_HELP)]
    Schema(SchemaArguments),
}

#[derive(Debug, Args)]
struct ShowArguments {
    #[command(flatten)]
    layering: Layering,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// The schema depends on no file; the flags are taken so that they may stand in every line.
#[derive(Debug, Args)]
struct SchemaArguments {
    #[command(flatten)]
    _layering: Layering,
}

/// Prints it.
pub fn run(layering: &Layering, arguments: &Arguments) -> anyhow::Result<Exit> {
    match &arguments.what {
        What::Show(arguments) => show(layering, arguments),
        What::Schema(_) => print_document(&schema()),
    }
}

fn show(layering: &Layering, show: &ShowArguments) -> anyhow::Result<Exit> {
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
    if show.json {
        print_json(&output)?;
    } else {
        print(&output)?;
    }
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
