//! Asks the running bridge of this configuration how it stands.

use std::time::Duration;

use bytes::Bytes;
use deskbridge::config::Config;
use http_body_util::Full;
use hyper::{Request, StatusCode, Uri};
use hyper_util::client::legacy;
use jiff::Timestamp;
use serde::Deserialize;

use super::finding::Finding;
use crate::cli::health::reachable;
use crate::cli::http_client::{Answer, Client};

/// A bridge answers within a second.
const PATIENCE: Duration = Duration::from_secs(3);

/// What came of asking it.
pub enum Running {
    /// How it stands.
    Answers(Box<Status>),
    /// Nobody listens there.
    Absent,
    /// What listens there did not say.
    Silent(Finding),
}

/// `/status`. What another version leaves out is as if nothing were wrong with it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Status {
    pub version: String,
    pub uptime_seconds: u64,
    pub not_ready: Vec<String>,
    pub broker: Broker,
    pub backlog: Backlog,
    pub routes: Vec<Route>,
    pub retrying: Vec<Retrying>,
    pub journal: Journal,
    pub reload: Option<Reload>,
}

/// The connection to the broker.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Broker {
    pub state: String,
    pub reason: Option<String>,
    pub since: Option<Timestamp>,
    pub findings: Vec<String>,
    pub reconnects: u64,
}

/// What waits for the broker.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Backlog {
    pub events: u64,
    pub oldest_seconds: f64,
}

/// A route.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Route {
    pub exchange: String,
    pub routing_key: String,
    pub state: String,
    pub reason: Option<String>,
}

/// Events of a route that were refused.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Retrying {
    pub exchange: String,
    pub routing_key: String,
    pub reason: String,
    pub events: u64,
    pub since: Option<Timestamp>,
    pub last_refusal: Option<String>,
}

/// The journal.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Journal {
    pub lost_events: u64,
}

/// The last reload.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Reload {
    pub is_applied: bool,
    pub findings: Vec<String>,
    pub waiting_for_restart: Vec<String>,
}

/// Asks once.
pub async fn ask(config: &Config) -> Running {
    let listen = reachable(config.admin.listen);
    let silent = |problem: String, fix: String| {
        let finding = Finding::warning(format!("admin.listen: {problem}"))
            .losing("whether a bridge runs and how it stands was not found out")
            .trying(fix)
            .leaving_unseen();
        Running::Silent(finding)
    };
    let asked = match tokio::time::timeout(PATIENCE, get(listen)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) if is_refused(&error) => return Running::Absent,
        Ok(Err(error)) => {
            let problem = format!("{listen} does not answer as a bridge does: {error:#}");
            return silent(
                problem,
                "another `admin.listen`, if another program has it".into(),
            );
        }
        Err(_) => {
            let problem = format!("{listen} does not answer within {PATIENCE:?}");
            let fix = "is the bridge stopped or the machine overloaded (`ps`, `uptime`)?";
            return silent(problem, fix.into());
        }
    };
    let status = (asked.status == StatusCode::OK)
        .then(|| serde_json::from_slice::<Status>(&asked.body).ok())
        .flatten()
        .filter(|status| !status.version.is_empty());
    match status {
        Some(status) => Running::Answers(Box::new(status)),
        None => silent(
            format!("what answers at {listen} is no bridge"),
            "another `admin.listen`, or end the program that has it".into(),
        ),
    }
}

async fn get(listen: std::net::SocketAddr) -> anyhow::Result<Answer> {
    let url: Uri = format!("http://{listen}/status").parse()?;
    let request = Request::get(&url).body(Full::new(Bytes::new()))?;
    Client::for_url(&url, 1)?.ask(request).await
}

fn is_refused(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<legacy::Error>();
    error.is_some_and(legacy::Error::is_connect)
}
