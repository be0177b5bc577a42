//! Plain values that rooms publish for `/status`, `/readyz` and `/metrics`.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

/// The connection to the broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BrokerStatus {
    /// Where it stands.
    pub state: BrokerState,
    /// Why, where there is something to say; never a password.
    pub reason: Option<String>,
    /// What to do about it, where more is known than that it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// Since when.
    pub since: Timestamp,
    /// The broker in use or tried last, without credentials.
    pub url: Option<String>,
    /// What is wrong with the topology, one sentence each.
    pub findings: Vec<String>,
    /// Who lets rejected messages wait, by consumer queue.
    pub retries: BTreeMap<String, Retries>,
    /// Messages in the queue for events nobody has subscribed to.
    pub unrouted_messages: Option<u64>,
    /// Messages in the dead-letter queue.
    pub dead_letter_messages: Option<u64>,
    /// Connections lost since the start.
    pub reconnects: u64,
    /// Objects of the topology that were missing and have been declared again, since the start.
    pub restored: u64,
    /// Until when the certificates are good with which the bridge connects; empty without TLS.
    pub certificates: BTreeMap<CertificateRole, Timestamp>,
}

/// Whose certificate it is.
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
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Ca, Self::Client, Self::Broker];

    /// The label of the metric.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ca => "ca",
            Self::Client => "client",
            Self::Broker => "broker",
        }
    }
}

/// Who lets the rejected messages of a queue wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Retries {
    /// The bridge: consumers reject without `requeue`.
    Bridge,
    /// The broker: consumers reject with `requeue`.
    Broker,
}

/// Where the connection to the broker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BrokerState {
    /// Connected, and the topology has been declared or checked.
    Connected,
    /// Trying.
    Connecting,
    /// Connected, but an alarm of the broker stops publishing.
    Blocked,
    /// The broker refuses the login, the vhost or the certificate.
    Refused,
}

/// One route as `/status` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RouteStatus {
    /// Exchange.
    pub exchange: Arc<str>,
    /// Routing key.
    pub routing_key: Arc<str>,
    /// Whether it flows.
    pub state: RouteState,
    /// Why it does not.
    pub reason: Option<String>,
    /// Since when it is in this state, if it ever was in another one.
    pub since: Option<Timestamp>,
}

/// Events of a route that the broker has refused and that are tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RetryingStatus {
    /// Exchange.
    pub exchange: Arc<str>,
    /// Routing key.
    pub routing_key: Arc<str>,
    /// `nacked`, `unroutable` or `too-large`.
    pub reason: &'static str,
    /// How many; the sessions of as many wait.
    pub events: u64,
    /// Since when there is one.
    pub since: Timestamp,
    /// What the broker said the last time.
    pub last_refusal: String,
}

/// Whether a route flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RouteState {
    /// It does.
    Open,
    /// Nothing of it was confirmed for `confirm_timeout`.
    Stuck,
    /// Its exchange is missing or forbidden.
    Closed,
}

/// The journal's counts, all of one moment:
/// accepted = published + dead-lettered + backlog.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Totals {
    /// Held, by source and status (`unknown`, `invalid` and `malformed` included).
    pub accepted: BTreeMap<(Arc<str>, Arc<str>), u64>,
    /// Published, by status.
    pub published: BTreeMap<Arc<str>, u64>,
    /// Dead-lettered, by reason.
    pub dead_lettered: BTreeMap<Arc<str>, u64>,
    /// Unsettled events.
    pub backlog_events: u64,
    /// What they take on the disk.
    pub backlog_bytes: u64,
    /// Events lost with a damaged database, ever.
    pub lost_events: u64,
    /// Events published again by an operator, ever; in none of the others.
    pub replayed: u64,
}

/// The journal's disk, as the journal looked at it last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct DiskStatus {
    /// Room for events: free bytes of the file system and free pages of the database.
    pub free_bytes: u64,
    /// Of these, free pages of the database.
    pub free_pages_bytes: u64,
    /// `journal.disk_free_min`.
    pub free_min_bytes: u64,
    /// The database with its log.
    pub journal_bytes: u64,
    /// What settled events take; they give way when there is no other room.
    pub retained_bytes: u64,
    /// `journal.backlog_bytes_max`.
    pub backlog_bytes_max: u64,
}

/// One source as `/status` shows it; times and refusals since the start of the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceStatus {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// When its last authentic webhook was complete.
    pub last_received: Option<Timestamp>,
    /// Which of its secrets signed that webhook: the file it stands in, or its place in the list.
    pub last_secret: Option<Arc<str>>,
    /// The last request to it that was refused, authentic or not.
    pub last_refused: Option<SourceRefusal>,
}

/// A request to a source that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceRefusal {
    /// When it was answered.
    pub at: Timestamp,
    /// The status code of the answer.
    pub code: u16,
    /// Why, in more words than its sender was told.
    pub reason: String,
}

/// What became of the last reload of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReloadStatus {
    /// When it was asked for.
    pub at: Timestamp,
    /// Whether the new configuration is in use; if not, the old one is.
    pub is_applied: bool,
    /// Why it was refused, one sentence each; never a secret.
    pub findings: Vec<String>,
    /// Sections that have changed too, but count only after a restart.
    pub waiting_for_restart: Vec<&'static str>,
}
