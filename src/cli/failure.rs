//! How errors are reported: what the command was doing, why it failed and what to try.

use deskbridge::config::Config;
use deskbridge::config::finding::ConfigError;
use deskbridge::journal::{CommandOpenError, JournalError};
use deskbridge::ops::counted;
use deskbridge::ops::failure::Failed;
pub use deskbridge::ops::failure::failed;

use super::Exit;
use super::output::{OutputClosed, say};

/// Arguments that are wrong, missing or cannot be combined.
#[derive(Debug, thiserror::Error)]
#[error("{problem}")]
struct UsageError {
    problem: String,
    advice: String,
}

/// An error in how the command was used. Exit code 2.
pub fn usage_error(problem: impl Into<String>, advice: impl Into<String>) -> anyhow::Error {
    UsageError {
        problem: problem.into(),
        advice: advice.into(),
    }
    .into()
}

/// The error of a command that cannot open the journal.
pub fn cannot_open(config: &Config, why: CommandOpenError) -> anyhow::Error {
    let advice = match &why {
        CommandOpenError::Missing(_) => {
            "name the bridge's configuration with --config; `deskbridge serve` creates the journal at its first start"
        }
        CommandOpenError::Directory(_) => {
            "run it as the user of the bridge, on the machine of the bridge"
        }
        CommandOpenError::Schema(_) => {
            "use the release that the bridge runs; an older journal is brought up to date by `deskbridge serve`"
        }
        CommandOpenError::Sqlite(_) => "check the disk and the bridge's log",
    };
    let dir = config.journal.dir.display();
    failed(format!("opening the journal in `{dir}`"), why, advice)
}

/// The error of a command that cannot read the journal.
pub fn unreadable(why: JournalError) -> anyhow::Error {
    failed(
        "reading the journal",
        why,
        "check the disk and the bridge's log",
    )
}

/// Reports an error on standard error and returns the exit code for it.
pub fn report(error: &anyhow::Error) -> Exit {
    if error.is::<OutputClosed>() {
        return Exit::Done;
    }
    if let Some(config) = error.downcast_ref::<ConfigError>() {
        return report_findings(config);
    }
    say(format_args!("error: {error:#}"));
    let (advice, exit) = if let Some(usage) = error.downcast_ref::<UsageError>() {
        (&usage.advice, Exit::Usage)
    } else if let Some(failed) = error.downcast_ref::<Failed>() {
        (&failed.advice, Exit::No)
    } else {
        return Exit::No;
    };
    say(format_args!("  try: {advice}"));
    exit
}

fn report_findings(error: &ConfigError) -> Exit {
    let findings = counted(error.findings.len(), "finding");
    say(format_args!("error: reading the configuration: {findings}"));
    for finding in &error.findings {
        say(format_args!("  {finding}"));
    }
    say("  try: correct the keys above; `deskbridge config schema` prints every key");
    Exit::Usage
}
