//! `check`: prints the findings about what would stop or lose traffic, one line each, and a verdict
//! at the end.

use clap::Args;
use deskbridge::foreign;
use deskbridge::ops::check::{self, Finding, Severity, Summary};

use super::output::{ignore_closed_output, print_as};
use super::{ConfigArguments, Exit, runtime};

const AFTER_HELP: &str = "\
Reads the configuration and its secrets, and inspects the journal's disk and the certificates. Connects to the \
broker, compares its exchanges and queues with the configuration, and asks for every status whether the broker \
would accept a message. With `rabbitmq.management_url` it also inspects bindings, queue types, limits, \
dead-lettering, permissions, alarms and the clock. If the bridge of this configuration is running, it reads the \
bridge's status too (`admin.listen`): which webhooks it refuses, what it cannot publish, and what the broker \
rejects. It changes nothing.

Each finding is one line: what is wrong, what is lost because of it, and what to type. Its consequences are \
printed below it (`consequence: …`). The last line is the verdict: healthy, degraded (something is wrong, but \
nothing stops webhooks or events, or loses messages), failing (webhooks or events stop, or messages can be \
lost), or incomplete (nothing wrong was found, but not everything could be inspected).

Exit codes: 0 healthy, degraded or incomplete, 1 failing, 2 findings in the configuration.

Examples:
  deskbridge check --config config/deskbridge.toml
  deskbridge check --set rabbitmq.management_url=http://user:password@localhost:15672";

/// Arguments of `check`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    /// Print one JSON object per line: the findings, then the verdict
    #[arg(long)]
    json: bool,
}

/// Inspects everything and prints the findings. The exit code is 1 if one of them is an error.
pub fn run(layering: &ConfigArguments, arguments: &Arguments) -> anyhow::Result<Exit> {
    let loaded = layering.load_to_run()?;
    let findings = runtime()?.block_on(check::inspect(&loaded));
    tell(&findings, arguments.json)?;
    let is_error = |finding: &Finding| finding.severity == Severity::Error;
    Ok(Exit::of(!findings.iter().any(is_error)))
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
    ignore_closed_output(print_as(is_json, &output))
}
