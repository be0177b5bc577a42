//! Queries the status of the running bridge of this configuration.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use hyper::StatusCode;
use hyper_util::client::legacy;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::config::Config;
use crate::http_client::{Answer, Client, reachable};
use crate::telemetry::status::Pause;

/// Maximum time for the answer. A bridge answers within a second.
const PATIENCE: Duration = Duration::from_secs(3);

/// What the running bridge answered.
#[derive(Debug, Clone, Default)]
pub struct Answered {
    /// The members that commands use.
    pub status: RunningStatus,
    /// The whole document.
    pub document: Value,
}

/// The document of `/status`. Members that another version leaves out have defaults that cause no
/// finding.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct RunningStatus {
    pub version: String,
    pub uptime_seconds: u64,
    pub not_ready: Vec<String>,
    pub broker: Broker,
    pub backlog: RunningBacklog,
    pub counters: RunningCounters,
    pub routes: Vec<RunningRoute>,
    pub retrying: Vec<Retrying>,
    pub paused: Vec<Pause>,
    pub sources: Vec<RunningSource>,
    pub journal: RunningJournal,
    pub disk: RunningDisk,
    pub reload: Option<RunningReload>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Broker {
    pub state: String,
    pub reason: Option<String>,
    pub since: Option<Timestamp>,
    pub url: Option<String>,
    pub findings: Vec<String>,
    pub unrouted_messages: Option<u64>,
    pub dead_letter_messages: Option<u64>,
    pub reconnects: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct RunningBacklog {
    pub events: u64,
    pub bytes: u64,
    pub oldest_seconds: f64,
}

/// Since the journal was created.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct RunningCounters {
    pub accepted: u64,
    pub published: u64,
    pub dead_lettered: u64,
    pub accepted_by_source: BTreeMap<String, BTreeMap<String, u64>>,
}

/// Times and refusals since the start of the process.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct RunningSource {
    pub name: String,
    pub last_received: Option<Timestamp>,
    pub last_secret: Option<String>,
    pub kept_secrets: Vec<String>,
    pub last_refused: Option<RunningRefusal>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct RunningRefusal {
    pub at: Option<Timestamp>,
    pub code: u16,
    pub reason: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct RunningDisk {
    pub free_bytes: u64,
    pub free_min_bytes: u64,
    pub journal_bytes: u64,
    pub backlog_bytes_max: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct RunningRoute {
    pub exchange: String,
    pub routing_key: String,
    pub state: String,
    pub reason: Option<String>,
}

/// Events of a route that were refused and are tried again.
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

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct RunningJournal {
    pub lost_events: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct RunningReload {
    pub is_applied: bool,
    pub findings: Vec<String>,
    pub waiting_for_restart: Vec<String>,
}

/// Sends one request to `admin.listen`. `None` if nothing listens there.
///
/// # Errors
/// If something listens there but does not answer like a bridge: the problem, and its fix.
pub async fn ask(config: &Config) -> Result<Option<Answered>, (String, &'static str)> {
    let listen = reachable(config.admin.listen);
    let stranger = "use another `admin.listen`, or end the program that listens there";
    let (problem, fix) = match tokio::time::timeout(PATIENCE, get(listen)).await {
        Ok(Ok(answer)) => {
            let document = serde_json::from_slice::<Value>(&answer.body).unwrap_or_default();
            let status = RunningStatus::deserialize(&document).unwrap_or_default();
            if answer.status == StatusCode::OK && !status.version.is_empty() {
                return Ok(Some(Answered { status, document }));
            }
            (
                format!("what answers at {listen} is not a bridge"),
                stranger,
            )
        }
        Ok(Err(error)) if is_refused(&error) => return Ok(None),
        Ok(Err(error)) => (
            format!("{listen} does not answer as a bridge does: {error:#}"),
            stranger,
        ),
        Err(_) => (
            format!("{listen} does not answer within {PATIENCE:?}"),
            "look whether the bridge is stopped (`ps`) or the machine overloaded (`uptime`)",
        ),
    };
    Err((problem, fix))
}

async fn get(listen: SocketAddr) -> anyhow::Result<Answer> {
    Client::get(&format!("http://{listen}/status").parse()?).await
}

fn is_refused(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<legacy::Error>();
    error.is_some_and(legacy::Error::is_connect)
}
