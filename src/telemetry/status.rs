//! Plain values that the modules publish for `/status`, `/readyz` and `/metrics`.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The connection to the broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BrokerStatus {
    /// The state of the main connection.
    pub state: BrokerState,
    /// The cause of the state, if one is known; never contains a password.
    pub reason: Option<String>,
    /// How to fix it, if more is known than that it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// When this state began.
    pub since: Timestamp,
    /// URL of the broker in use or tried last, without credentials.
    pub url: Option<String>,
    /// Findings about the topology, one sentence each.
    pub findings: Vec<String>,
    /// By consumer queue with a `retry_delay`: whether bridge or broker delays rejected messages.
    pub retries: BTreeMap<String, Retries>,
    /// Messages in the `unrouted` queue, which receives events that match no binding.
    pub unrouted_messages: Option<u64>,
    /// Messages in the dead-letter queue.
    pub dead_letter_messages: Option<u64>,
    /// Connections lost since the start.
    pub reconnects: u64,
    /// Objects of the topology that were missing and have been declared again, since the start.
    pub restored: u64,
    /// Expiry of the certificates that the connection depends on; empty without TLS.
    pub certificates: BTreeMap<CertificateRole, Timestamp>,
}

/// The role of a certificate in the TLS connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CertificateRole {
    /// Of the authorities in `rabbitmq.tls.ca_file`.
    Ca,
    /// The bridge's own, in `rabbitmq.tls.cert_file`.
    Client,
    /// Presented by the broker.
    Broker,
}

impl CertificateRole {
    /// Every role, in the order of declaration.
    pub const ALL: [Self; 3] = [Self::Ca, Self::Client, Self::Broker];

    /// The label value in `/metrics`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ca => "ca",
            Self::Client => "client",
            Self::Broker => "broker",
        }
    }
}

/// Who delays the rejected messages of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Retries {
    /// The bridge, through a retry queue: consumers reject without `requeue`.
    Bridge,
    /// The broker, within the queue: consumers reject with `requeue`.
    Broker,
}

/// State of the connection to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BrokerState {
    /// Connected, and the topology has been declared or checked.
    Connected,
    /// Not connected; attempts to connect continue.
    Connecting,
    /// Connected, but the broker has blocked publishing because of an alarm (`connection.blocked`).
    Blocked,
    /// The broker refused the login, the vhost or the certificate.
    Refused,
}

/// One route as `/status` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RouteStatus {
    /// Name of the exchange.
    pub exchange: Arc<str>,
    /// Routing key; may be empty.
    pub routing_key: Arc<str>,
    /// State of its circuit breaker.
    pub state: RouteState,
    /// Why it is not healthy.
    pub reason: Option<String>,
    /// When this state began; `None` if the route was always healthy.
    pub since: Option<Timestamp>,
}

/// Events of a route that the broker has rejected for one reason and that are published again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RetryingStatus {
    /// Name of the exchange.
    pub exchange: Arc<str>,
    /// Routing key; may be empty.
    pub routing_key: Arc<str>,
    /// `nacked`, `unroutable` or `too-large`.
    pub reason: &'static str,
    /// Number of events. Each of them holds back the later events of its session.
    pub events: u64,
    /// When the first of them was rejected. Reset when none is left.
    pub since: Timestamp,
    /// The broker's answer to the latest rejection.
    pub last_refusal: String,
}

/// State of a route's circuit breaker. For compatibility, JSON says "open" for healthy and "closed"
/// for unavailable, which is the opposite of an open and a closed circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum RouteState {
    /// Events are published.
    #[serde(rename = "open")]
    Healthy,
    /// Nothing of the route was confirmed for `confirm_timeout`.
    #[serde(rename = "stuck")]
    Stalled,
    /// Its exchange is missing or forbidden.
    #[serde(rename = "closed")]
    Unavailable,
    /// An operator has paused publishing.
    #[serde(rename = "paused")]
    Paused,
}

/// A pause of publishing, set by an operator. Without exchange and routing key, it applies to
/// everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Only routes of this exchange.
    pub exchange: Option<Arc<str>>,
    /// Only routes with this routing key.
    pub routing_key: Option<Arc<str>>,
    /// When it was set.
    pub since: Timestamp,
}

impl Pause {
    /// What is paused, as the subject of a sentence.
    #[must_use]
    pub fn subject(&self) -> String {
        match (&self.exchange, &self.routing_key) {
            (None, None) => "everything".into(),
            (None, Some(key)) => format!("routing key `{key}`"),
            (Some(exchange), None) => format!("exchange `{exchange}`"),
            (Some(exchange), Some(key)) => format!("routing key `{key}` of exchange `{exchange}`"),
        }
    }

    /// Whether it applies to every route.
    #[must_use]
    pub fn is_of_everything(&self) -> bool {
        self.exchange.is_none() && self.routing_key.is_none()
    }

    /// Whether it applies to a route.
    #[must_use]
    pub fn covers(&self, exchange: &str, routing_key: &str) -> bool {
        let is_it = |wanted: &Option<Arc<str>>, found: &str| {
            wanted.as_ref().is_none_or(|wanted| **wanted == *found)
        };
        is_it(&self.exchange, exchange) && is_it(&self.routing_key, routing_key)
    }
}

/// The journal's counters, all read at the same moment:
/// accepted = published + dead-lettered + backlog.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Totals {
    /// Accepted events, by source and status (including `unknown`, `invalid` and `malformed`).
    pub accepted: BTreeMap<(Arc<str>, Arc<str>), u64>,
    /// Published events, by status.
    pub published: BTreeMap<Arc<str>, u64>,
    /// Dead-lettered events, by reason.
    pub dead_lettered: BTreeMap<Arc<str>, u64>,
    /// Pending events.
    pub backlog_events: u64,
    /// Bytes that pending events take on disk, estimated from the length of their rows.
    pub backlog_bytes: u64,
    /// Events lost with a damaged database, since the journal was created.
    pub lost_events: u64,
    /// Events replayed by an operator, since the journal was created; in none of the other
    /// counters.
    pub replayed: u64,
}

/// The journal's disk, as of the journal's latest check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct DiskStatus {
    /// Bytes available for events: free space of the file system and free pages of the database.
    pub free_bytes: u64,
    /// The part of `free_bytes` that is free pages of the database.
    pub free_pages_bytes: u64,
    /// The setting `journal.disk_free_min`.
    pub free_min_bytes: u64,
    /// Size of the database and its WAL.
    pub journal_bytes: u64,
    /// Bytes that completed events take. They are deleted when there is no other room.
    pub retained_bytes: u64,
    /// The setting `journal.backlog_bytes_max`.
    pub backlog_bytes_max: u64,
}

/// One source as `/status` shows it; times and refusals since the start of the process.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct SourceStatus {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// When its latest authentic webhook had been received completely.
    pub last_received: Option<Timestamp>,
    /// The secret that signed that webhook, named by its file or by its configuration key.
    pub last_secret: Option<Arc<str>>,
    /// Files without a secret whose last secret stays in use until they have another.
    pub kept_secrets: Arc<[Arc<str>]>,
    /// The latest refused request to it, authentic or not.
    pub last_refused: Option<SourceRefusal>,
}

/// A request to a source that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceRefusal {
    /// When it was answered.
    pub at: Timestamp,
    /// The status code of the answer.
    pub code: u16,
    /// The reason, in more detail than in the answer to the sender.
    pub reason: String,
}

/// Outcome of the latest reload of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReloadStatus {
    /// When the reload was finished.
    pub at: Timestamp,
    /// Whether the new configuration is in use. If not, the previous one stays in use.
    pub is_applied: bool,
    /// Why it was rejected, one sentence each; never contains a secret.
    pub findings: Vec<String>,
    /// Sections that also changed, but take effect only after a restart.
    pub waiting_for_restart: Vec<&'static str>,
}
