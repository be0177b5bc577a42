//! `check`: looks for what would stop or lose traffic, one line a finding, the cause before what
//! follows from it, and one word for all.

mod broker;
mod case;
mod certificates;
mod connecting;
mod exchanges;
mod finding;
mod listeners;
mod management;
mod mend;
mod permissions;
mod publishing;
mod queues;
mod running;
mod sharing;
mod standing;
mod statuses;
#[cfg(test)]
mod tests;
mod topology;
mod verdict;

use clap::Args;
use deskbridge::config::{Config, Loaded};
use deskbridge::telemetry::foreign;
use jiff::Timestamp;

pub use self::finding::Finding;
use self::finding::{Severity, grouped};
use self::running::Running;
use self::verdict::Summary;
use super::output::{even_unread, print, print_json};
use super::{Exit, Layering, journal_dir, runtime};

const AFTER_HELP: &str = "\
Reads configuration and secrets, looks at the journal's disk and at certificates, connects to the broker, \
compares its exchanges and queues with the configuration and asks whether it would take a message of every \
status. With `rabbitmq.management_url` it also looks at everything between there and the consumers: bindings, \
kinds of queues, limits, dead-lettering, permissions, alarms, the clock. If the bridge of this configuration \
runs, it is asked too (`admin.listen`): what it refuses, what it cannot publish, what is refused. Changes nothing.

One line a finding: what is wrong, what is lost by it, what to type; below it what follows from it. The last \
line is the verdict: healthy, degraded (something is wrong, nothing stops), failing (traffic stops, or what the \
broker has confirmed can be lost), or incomplete (nothing wrong was found, not everything could be inspected).

Exit codes: 0 healthy, degraded or incomplete, 1 failing, 2 findings in the configuration.

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
    let mut findings = secrets(&loaded);
    findings.extend(exposure(&loaded.config));
    findings.extend(journal_dir::look(&loaded.config.journal));
    findings.extend(certificates::look(&loaded.config.rabbitmq));
    findings.extend(runtime()?.block_on(look(&loaded.config)));
    let findings = grouped(findings);
    tell(&findings, arguments.json)?;
    let stops = findings
        .iter()
        .any(|finding| finding.severity == Severity::Error);
    Ok(if stops { Exit::No } else { Exit::Done })
}

/// The broker, and the bridge that runs or could be started.
async fn look(config: &Config) -> Vec<Finding> {
    let running = running::ask(config).await;
    let is_running = matches!(running, Running::Answers(_));
    let looked = broker::look(config, is_running).await;
    let mut findings = looked.findings;
    match running {
        Running::Answers(status) => {
            let existing = looked.existing.as_ref();
            findings.extend(standing::judge(&status, existing, Timestamp::now()));
        }
        Running::Absent => {
            findings.push(Finding::note(
                "no bridge of this configuration is running (nothing listens on `admin.listen`)",
            ));
            findings.extend(listeners::look(config));
        }
        Running::Silent(finding) => findings.push(finding),
    }
    findings
}

fn tell(findings: &[Finding], is_json: bool) -> anyhow::Result<()> {
    let summary = Summary::of(findings);
    let mut lines = Vec::new();
    for finding in findings {
        if is_json {
            lines.push(serde_json::to_string(finding)?);
        } else {
            let of_it = finding.lines().into_iter();
            lines.extend(of_it.map(|line| foreign::line(&line).into_owned()));
        }
    }
    lines.push(if is_json {
        serde_json::to_string(&summary)?
    } else {
        summary.to_string()
    });
    let output = lines.join("\n") + "\n";
    even_unread(if is_json {
        print_json(&output)
    } else {
        print(&output)
    })
}

/// Sources that would refuse everything until their secret is there.
fn secrets(loaded: &Loaded) -> Vec<Finding> {
    loaded
        .awaited
        .iter()
        .map(|finding| {
            Finding::error(finding.to_string())
                .losing("every webhook of this source is refused, and DeskDirector pauses it")
                .trying("write the secret that DeskDirector shows for the webhook into the file, then SIGHUP")
        })
        .collect()
}

/// What is open to anybody.
fn exposure(config: &Config) -> Vec<Finding> {
    let unsigned = config
        .sources
        .iter()
        .filter(|(_, source)| !source.is_signed());
    let unsigned = unsigned.map(|(name, _)| {
        Finding::warning(format!(
            "sources.{name}: anybody who reaches the listener can post (`signature = \"none\"`)"
        ))
        .trying("`signature = \"required\"` and the secret that DeskDirector shows for the webhook")
    });
    unsigned.collect()
}
