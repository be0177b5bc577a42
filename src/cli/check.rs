//! `check`: looks for what would stop or lose traffic, one line a finding.

mod broker;
mod case;
mod certificates;
mod exchanges;
mod line;
mod management;
mod mend;
mod permissions;
mod queues;
mod statuses;
#[cfg(test)]
mod tests;

use clap::Args;
use deskbridge::config::{Config, Loaded};
use deskbridge::telemetry::foreign;

pub use self::line::Line;
use self::line::Severity;
use super::output::{even_unread, print, print_json};
use super::{Exit, Layering, journal_dir, runtime};

const AFTER_HELP: &str = "\
Reads configuration and secrets, looks at the journal's disk and at certificates, connects to the broker, \
compares its exchanges and queues with the configuration and asks whether it would take a message of every \
status. With `rabbitmq.management_url` it also looks at everything between there and the consumers: bindings, \
kinds of queues, limits, dead-lettering, permissions, alarms, the clock. Changes nothing.

One line a finding: what is wrong, what is lost by it, what to type. Errors stop events or can lose what the \
broker has confirmed, and exit with 1; warnings and notes do not.

Examples:
  deskbridge check --config config/deskbridge.toml
  deskbridge check --set rabbitmq.management_url=http://user:password@localhost:15672";

/// Arguments of `check`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Looks at everything and prints what it found.
pub fn run(layering: &Layering, arguments: &Arguments) -> anyhow::Result<Exit> {
    let loaded = layering.load_to_run()?;
    let mut lines = secrets(&loaded);
    lines.extend(exposure(&loaded.config));
    lines.extend(journal_dir::look(&loaded.config.journal));
    lines.extend(certificates::look(&loaded.config.rabbitmq));
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
            foreign::line(&line.to_string()).into_owned()
        };
        output.push_str(&text);
        output.push('\n');
    }
    let is_sound = lines.iter().all(|line| line.severity == Severity::Note);
    if is_sound && !is_json {
        let is_whole = !lines.iter().any(|line| line.is_unseen);
        output.push_str(if is_whole {
            "ok: nothing would stop or lose traffic\n"
        } else {
            "ok: nothing that was looked at would stop or lose traffic\n"
        });
    }
    even_unread(if is_json {
        print_json(&output)
    } else {
        print(&output)
    })
}

/// Sources that would refuse everything until their secret is there.
fn secrets(loaded: &Loaded) -> Vec<Line> {
    loaded
        .awaited
        .iter()
        .map(|finding| {
            Line::error(finding.to_string())
                .losing("every webhook of this source is refused, and DeskDirector pauses it")
                .trying("write the secret that DeskDirector shows for the webhook into the file, then SIGHUP")
        })
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
        .trying("`signature = \"required\"` and the secret that DeskDirector shows for the webhook")
    });
    unsigned.collect()
}
