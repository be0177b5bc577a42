//! `config`: shows the effective configuration. Secrets are masked.

use std::fmt::Write;

use anyhow::Context;
use clap::{Args, Subcommand};
use toml::Value;

use super::{Exit, Layering};

const AFTER_HELP: &str = "\
Prints every key with its value as it takes effect and where it came from. Secrets are masked.

Example:
  DESKBRIDGE__HTTP__SESSIONS_MAX=500 deskbridge config show";

/// Arguments of `config`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Every value as it takes effect, and where it came from
    #[command(after_help = AFTER_HELP)]
    Show(ShowArguments),
}

#[derive(Debug, Args)]
struct ShowArguments {
    #[command(flatten)]
    layering: Layering,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Prints it.
pub fn run(layering: &Layering, arguments: &Arguments) -> anyhow::Result<Exit> {
    let What::Show(show) = &arguments.what;
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
            writeln!(output, "{:<60} # {origin}", format!("{key} = {value}"))?;
        }
    }
    super::print(&output)?;
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
