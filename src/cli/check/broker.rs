//! Connects to the broker as the bridge would and compares what exists there with the
//! configuration. Declares nothing.

use std::time::Duration;

use deskbridge::config::Config;
use deskbridge::config::rabbitmq::TopologyMode;
use deskbridge::rabbitmq::{self, Settings};
use deskbridge::telemetry::status::{BrokerState, BrokerStatus};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Line;

/// Beyond the connect timeouts of all URLs.
const PATIENCE: Duration = Duration::from_secs(2);

/// What would keep messages from the broker, or from its queues.
pub async fn look(config: &Config) -> Vec<Line> {
    let declares = config.rabbitmq.topology == TopologyMode::Declare;
    let mut verifying = config.clone();
    verifying.rabbitmq.topology = TopologyMode::Verify;
    let settings = match Settings::from_config(&verifying) {
        Ok(settings) => settings,
        Err(error) => return vec![Line::error(format!("rabbitmq.urls: {error}"))],
    };
    let urls = u32::try_from(settings.urls.len()).unwrap_or(u32::MAX);
    let patience = settings.connect_timeout.saturating_mul(urls) + PATIENCE;
    let (reports, _kept) = mpsc::channel(16);
    let stop = CancellationToken::new();
    let (_publisher, mut status, links) = rabbitmq::start(settings, reports, stop.clone());
    let decided = status
        .wait_for(|status| status.state != BrokerState::Connecting || status.reason.is_some());
    let _ = timeout(patience, decided).await;
    let found = status.borrow().clone();
    stop.cancel();
    let _ = timeout(PATIENCE, links).await;
    lines(&found, declares)
}

fn lines(status: &BrokerStatus, declares: bool) -> Vec<Line> {
    let url = status.url.as_deref().unwrap_or("the broker");
    let reason = status.reason.as_deref().unwrap_or("no answer in time");
    match status.state {
        BrokerState::Connecting => {
            return vec![Line::error(format!(
                "{url} cannot be reached: {reason}; events would wait in the journal"
            ))];
        }
        BrokerState::Refused => {
            return vec![Line::error(format!(
                "{url} refuses: {reason}; look at user, password, vhost and certificate"
            ))];
        }
        BrokerState::Connected | BrokerState::Blocked => {}
    }
    let mut lines: Vec<Line> = status
        .findings
        .iter()
        .map(|finding| of_topology(finding, declares))
        .collect();
    if status.state == BrokerState::Blocked {
        lines.push(Line::warning(format!(
            "{url} takes no messages at the moment: {reason}"
        )));
    }
    lines
}

fn of_topology(finding: &str, declares: bool) -> Line {
    let is_missing = finding.ends_with("is missing");
    match (is_missing, declares) {
        (true, true) => Line::warning(format!("{finding}; `serve` will declare it")),
        (true, false) => Line::error(format!(
            "{finding}; with rabbitmq.topology = \"verify\" its events wait until somebody declares it"
        )),
        (false, _) => Line::error(finding),
    }
}
