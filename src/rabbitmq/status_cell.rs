//! The broker's state as `/status` shows it. Each change of state is logged once.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use tokio::sync::watch;
use tracing::{info, warn};

use super::url::BrokerUrl;
use crate::telemetry::status::{BrokerState, BrokerStatus, CertificateRole, Retries};

/// The shared broker status. The main link and the tasks of its connection write it.
pub(super) struct BrokerStatusCell {
    status: watch::Sender<BrokerStatus>,
    /// The URL that the main link uses or tried last; the other connections use the same.
    endpoint: Mutex<Option<BrokerUrl>>,
    /// The finding about the broker's version, the first of the findings in `status`.
    version: Mutex<Option<String>>,
}

impl BrokerStatusCell {
    pub(super) fn new() -> Self {
        let status = BrokerStatus {
            state: BrokerState::Connecting,
            reason: None,
            advice: None,
            since: Timestamp::now(),
            url: None,
            findings: Vec::new(),
            retries: BTreeMap::new(),
            unrouted_messages: None,
            dead_letter_messages: None,
            reconnects: 0,
            restored: 0,
            certificates: BTreeMap::new(),
        };
        Self {
            status: watch::Sender::new(status),
            endpoint: Mutex::default(),
            version: Mutex::default(),
        }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<BrokerStatus> {
        self.status.subscribe()
    }

    pub(super) fn endpoint(&self) -> Option<BrokerUrl> {
        let endpoint = self.endpoint.lock();
        endpoint.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn connecting(&self, url: &BrokerUrl) {
        let mut endpoint = self.endpoint.lock().unwrap_or_else(PoisonError::into_inner);
        *endpoint = Some(url.clone());
        self.status
            .send_modify(|status| status.url = Some(url.to_string()));
    }

    pub(super) fn connected(&self) {
        self.enter(BrokerState::Connected, None, None);
        info!(url = self.url(), "connected to the broker");
    }

    pub(super) fn lost(&self, reason: &str) {
        self.enter(BrokerState::Connecting, Some(reason), None);
        self.status.send_modify(|status| status.reconnects += 1);
        warn!(
            url = self.url(),
            reason, "connection to the broker lost; reconnecting"
        );
    }

    /// Records a failed connection attempt. Logs it if nothing has been reported since the last
    /// connection, or if the state changes to refused.
    pub(super) fn failed(&self, is_refused: bool, reason: &str, advice: Option<&str>) {
        let state = if is_refused {
            BrokerState::Refused
        } else {
            BrokerState::Connecting
        };
        let (is_first, is_news) = {
            let status = self.status.borrow();
            (status.reason.is_none(), status.state != state)
        };
        self.enter(state, Some(reason), advice);
        let problem = match state {
            BrokerState::Refused if is_news => "the broker refuses the connection",
            _ if is_first => "the broker is not reachable",
            _ => return,
        };
        let url = self.url();
        warn!(url, reason, advice, "{problem}; events wait in the journal");
    }

    /// Records that an alarm blocks publishing, for this reason; `None` once it is cleared.
    pub(super) fn blocked(&self, reason: Option<&str>) {
        if reason.is_some() {
            self.enter(BrokerState::Blocked, reason, None);
            warn!(
                reason,
                "the broker has blocked publishing; events wait in the journal"
            );
        } else {
            self.enter(BrokerState::Connected, None, None);
            info!("the broker accepts messages again");
        }
    }

    /// Replaces the findings about the topology; each new one is logged.
    pub(super) fn set_findings(&self, findings: Vec<String>) {
        for finding in &findings {
            if !self.status.borrow().findings.contains(finding) {
                warn!(finding, "the broker's topology is not as configured");
            }
        }
        let version = self.version.lock();
        let version = version.unwrap_or_else(PoisonError::into_inner).clone();
        let all = version.into_iter().chain(findings).collect();
        self.set(|status| &mut status.findings, all);
    }

    /// Replaces the finding about the broker's version; a new one is logged. The next call of
    /// [`set_findings`](Self::set_findings) shows it.
    pub(super) fn set_version_finding(&self, finding: Option<String>) {
        let version = self.version.lock();
        let mut version = version.unwrap_or_else(PoisonError::into_inner);
        if let Some(finding) = finding.as_ref().filter(|_| *version != finding) {
            warn!(finding, "the broker's version is not supported");
        }
        *version = finding;
    }

    /// Records whether the broker or the bridge delays rejected messages, by queue. Changes are
    /// logged.
    pub(super) fn set_retries(&self, retries: BTreeMap<String, Retries>) {
        for (queue, by) in &retries {
            if self.status.borrow().retries.get(queue) != Some(by) {
                info!(queue, ?by, "retry mechanism for rejected messages selected");
            }
        }
        self.set(|status| &mut status.retries, retries);
    }

    /// Records when a certificate expires; `None` if that is not known.
    pub(super) fn set_certificate(&self, role: CertificateRole, until: Option<Timestamp>) {
        self.status.send_if_modified(|status| {
            let before = match until {
                Some(until) => status.certificates.insert(role, until),
                None => status.certificates.remove(&role),
            };
            before != until
        });
    }

    /// Counts missing objects that were declared again.
    pub(super) fn restored(&self, objects: u64) {
        if objects > 0 {
            self.status.send_modify(|status| status.restored += objects);
        }
    }

    pub(super) fn set_counts(&self, unrouted: Option<u64>, dead_letter: Option<u64>) {
        self.status.send_modify(|status| {
            status.unrouted_messages = unrouted;
            status.dead_letter_messages = dead_letter;
        });
    }

    fn url(&self) -> Option<String> {
        self.status.borrow().url.clone()
    }

    fn set<T: PartialEq>(&self, field: fn(&mut BrokerStatus) -> &mut T, value: T) {
        self.status.send_if_modified(|status| {
            let old = std::mem::replace(field(status), value);
            old != *field(status)
        });
    }

    fn enter(&self, state: BrokerState, reason: Option<&str>, advice: Option<&str>) {
        self.status.send_modify(|status| {
            if status.state != state {
                status.state = state;
                status.since = Timestamp::now();
            }
            status.reason = reason.map(Into::into);
            status.advice = advice.map(Into::into);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finding_about_the_version_comes_first_and_goes() {
        let cell = BrokerStatusCell::new();
        let findings = || cell.status.borrow().findings.clone();
        cell.set_version_finding(Some("old".into()));
        cell.set_findings(vec!["queue".into()]);
        assert_eq!(findings(), ["old", "queue"]);
        cell.set_version_finding(None);
        cell.set_findings(vec!["queue".into()]);
        assert_eq!(findings(), ["queue"]);
    }
}
