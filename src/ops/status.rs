//! The health of the running bridge, with the findings that it is based on.

use jiff::Timestamp;
use serde::Serialize;

use super::check::finding::Findings;
use super::check::{Finding, Severity, running_status};
use super::running_bridge::{self, Answered};
use crate::config::Config;
use crate::http_client::reachable;

/// The health of a bridge; the discriminants are the exit codes of monitoring plugins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// Webhooks are accepted, and their events are published.
    Healthy = 0,
    /// Webhooks are accepted, but something is wrong. Nothing is lost.
    Degraded = 1,
    /// Webhooks are not accepted, or no bridge answers.
    NotAccepting = 2,
}

/// A bridge at one moment.
#[derive(Debug, Clone)]
pub struct Overview {
    /// The health.
    pub health: Health,
    /// What is wrong, the worst first; notes at the end.
    pub findings: Vec<Finding>,
    /// The status, if a bridge answered.
    pub running: Option<Answered>,
}

/// Queries the bridge of this configuration.
pub async fn overview(config: &Config) -> Overview {
    let running = running_bridge::ask(config).await;
    let mut list = Findings::default();
    let running = match running {
        Ok(Some(answered)) => return Overview::of(answered, Timestamp::now()),
        Ok(None) => {
            let listen = reachable(config.admin.listen);
            list.error(format!("no bridge is running: nothing listens at {listen}"))
                .fix("start the bridge (`deskbridge serve`), or name its configuration with --config, so that `admin.listen` is the same");
            None
        }
        Err((problem, fix)) => {
            list.error(problem).fix(fix);
            None
        }
    };
    Overview {
        health: Health::NotAccepting,
        findings: list.grouped(),
        running,
    }
}

impl Overview {
    /// Judges the status of a running bridge.
    #[must_use]
    pub fn of(answered: Answered, now: Timestamp) -> Self {
        let mut list = Findings::default();
        running_status::judge(&answered.status, None, now, &mut list);
        let findings = list.grouped();
        let is_wrong = findings.iter().any(|one| one.severity < Severity::Note);
        let health = match (answered.status.not_ready.is_empty(), is_wrong) {
            (false, _) => Health::NotAccepting,
            (true, true) => Health::Degraded,
            (true, false) => Health::Healthy,
        };
        Self {
            health,
            findings,
            running: Some(answered),
        }
    }
}
