//! The broker's state as `/status` shows it, and the one log line of each change.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::Timestamp;
use tokio::sync::watch;
use tracing::{info, warn};

use super::link::Failure;
use super::url::BrokerUrl;
use crate::telemetry::status::{BrokerState, BrokerStatus, CertificateRole, Retries};

/// Where the main link writes what it sees.
pub(super) struct Board {
    status: watch::Sender<BrokerStatus>,
    /// Which URL the main link uses or tried last; the probe link follows it.
    endpoint: AtomicUsize,
}

impl Board {
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
            endpoint: AtomicUsize::new(0),
        }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<BrokerStatus> {
        self.status.subscribe()
    }

    pub(super) fn endpoint(&self) -> usize {
        self.endpoint.load(Ordering::Relaxed)
    }

    pub(super) fn connecting(&self, endpoint: usize, url: &BrokerUrl) {
        self.endpoint.store(endpoint, Ordering::Relaxed);
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
            reason, "connection to the broker lost, connecting again"
        );
    }

    /// An attempt failed; logged if that is news.
    pub(super) fn failed(&self, is_refused: bool, failure: &Failure) {
        let (reason, advice) = (failure.reason.as_str(), failure.advice.as_deref());
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
        if is_refused && is_news {
            warn!(
                url = self.url(),
                reason, advice, "the broker refuses us; events wait in the journal"
            );
        } else if is_first {
            warn!(
                url = self.url(),
                reason, advice, "the broker is not reachable; events wait in the journal"
            );
        }
    }

    pub(super) fn blocked(&self, reason: &str) {
        self.enter(BrokerState::Blocked, Some(reason), None);
        warn!(
            reason,
            "the broker has blocked publishing; events wait in the journal"
        );
    }

    pub(super) fn unblocked(&self) {
        self.enter(BrokerState::Connected, None, None);
        info!("the broker takes messages again");
    }

    /// What is wrong with the topology; each sentence is logged when it is new.
    pub(super) fn set_findings(&self, findings: Vec<String>) {
        for finding in &findings {
            if !self.status.borrow().findings.contains(finding) {
                warn!(finding, "the broker's topology is not as configured");
            }
        }
        self.status.send_if_modified(|status| {
            let is_new = status.findings != findings;
            status.findings = findings;
            is_new
        });
    }

    /// Who lets rejected messages wait, by queue; logged when it is new.
    pub(super) fn set_retries(&self, retries: BTreeMap<String, Retries>) {
        for (queue, by) in &retries {
            if self.status.borrow().retries.get(queue) != Some(by) {
                info!(queue, ?by, "retries of rejected messages settled");
            }
        }
        self.status.send_if_modified(|status| {
            let is_new = status.retries != retries;
            status.retries = retries;
            is_new
        });
    }

    /// Until when a certificate is good; `None` if that is not known.
    pub(super) fn set_certificate(&self, role: CertificateRole, until: Option<Timestamp>) {
        self.status.send_if_modified(|status| {
            let before = match until {
                Some(until) => status.certificates.insert(role, until),
                None => status.certificates.remove(&role),
            };
            before != until
        });
    }

    /// Objects that were missing are there again.
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
