//! How errors are told: what was being done, why it failed, what to try.

use std::error::Error;

use deskbridge::config::finding::ConfigError;

use super::Exit;
use super::output::{Unread, say};

/// A step that failed, with advice.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
struct Failed {
    doing: String,
    #[source]
    why: Box<dyn Error + Send + Sync>,
    advice: String,
}

/// Arguments that do not go together.
#[derive(Debug, thiserror::Error)]
#[error("{problem}")]
struct Misused {
    problem: String,
    advice: String,
}

/// An error that says what was being done, why it failed and what to try.
pub fn failed(
    doing: impl Into<String>,
    why: impl Into<Box<dyn Error + Send + Sync>>,
    advice: impl Into<String>,
) -> anyhow::Error {
    Failed {
        doing: doing.into(),
        why: why.into(),
        advice: advice.into(),
    }
    .into()
}

/// An error of whoever typed the command.
pub fn misused(problem: impl Into<String>, advice: impl Into<String>) -> anyhow::Error {
    Misused {
        problem: problem.into(),
        advice: advice.into(),
    }
    .into()
}

/// Tells an error on standard error and says how to exit.
pub fn report(error: &anyhow::Error) -> Exit {
    if error.is::<Unread>() {
        return Exit::Done;
    }
    if let Some(config) = error.downcast_ref::<ConfigError>() {
        return report_findings(config);
    }
    say(format_args!("error: {error:#}"));
    let failed = error
        .downcast_ref::<Failed>()
        .map(|failed| (&failed.advice, Exit::No));
    let misused = error
        .downcast_ref::<Misused>()
        .map(|misused| (&misused.advice, Exit::Usage));
    match failed.or(misused) {
        Some((advice, exit)) => {
            say(format_args!("  try: {advice}"));
            exit
        }
        None => Exit::No,
    }
}

fn report_findings(error: &ConfigError) -> Exit {
    match error.findings.len() {
        1 => say("error: reading the configuration: 1 finding"),
        count => say(format_args!(
            "error: reading the configuration: {count} findings"
        )),
    }
    for finding in &error.findings {
        say(format_args!("  {finding}"));
    }
    say("  try: compare with config/default.toml, which shows every key");
    Exit::Usage
}
