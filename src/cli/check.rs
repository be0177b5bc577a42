//! `check`: looks for what would stop or lose traffic, one line a finding.

mod broker;

use std::fmt;

use clap::Args;
use deskbridge::config::{Config, Loaded};
use serde::Serialize;

use super::{Exit, Layering, journal_dir, print, runtime};

const AFTER_HELP: &str = "\
Reads configuration and secrets, looks at the journal's directory, connects to the broker and compares \
its exchanges and queues with the configuration. Changes nothing. Errors stop or lose traffic and exit \
with 1; warnings do not.

Example:
  deskbridge check --config config/deskbridge.toml";

/// Arguments of `check`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Whether a finding stops or loses traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It does.
    Error,
    /// It does not, but is not what people want.
    Warning,
}

/// One line of the result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    severity: Severity,
    problem: String,
}

impl Line {
    /// Something that stops or loses traffic.
    pub fn error(problem: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            problem: problem.into(),
        }
    }

    /// Something that does not.
    pub fn warning(problem: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            problem: problem.into(),
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(formatter, "{severity}: {}", self.problem)
    }
}

/// Looks at everything and prints what it found.
pub fn run(layering: &Layering, arguments: &Arguments) -> anyhow::Result<Exit> {
    let loaded = layering.load_to_run()?;
    let mut lines = secrets(&loaded);
    lines.extend(exposure(&loaded.config));
    lines.extend(journal_dir::look(&loaded.config.journal));
    lines.extend(runtime()?.block_on(broker::look(&loaded.config)));
    tell(&lines, arguments.json)?;
    let stops = lines.iter().any(|line| line.severity == Severity::Error);
    Ok(if stops { Exit::No } else { Exit::Done })
}

fn tell(lines: &[Line], is_json: bool) -> anyhow::Result<()> {
    let mut output = String::new();
    for line in lines {
        let text = if is_json {
            serde_json::to_string(line)?
        } else {
            line.to_string()
        };
        output.push_str(&text);
        output.push('\n');
    }
    if lines.is_empty() && !is_json {
        output.push_str("ok: nothing would stop or lose traffic\n");
    }
    print(&output)
}

/// Sources that would refuse everything until their secret is there.
fn secrets(loaded: &Loaded) -> Vec<Line> {
    loaded
        .awaited
        .iter()
        .map(|finding| Line::error(finding.to_string()))
        .collect()
}

/// What is open to anybody.
fn exposure(config: &Config) -> Vec<Line> {
    let unsigned = config
        .sources
        .iter()
        .filter(|(_, source)| !source.is_signed());
    let unsigned = unsigned.map(|(name, _)| {
        Line::warning(format!(
            "sources.{name}: anybody who reaches the listener can post (`signature = \"none\"`)"
        ))
    });
    unsigned.collect()
}
