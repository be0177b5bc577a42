//! What the writer's thread tells everybody else: the counts after the last commit, whether
//! webhooks would be refused, and whether it has given up.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use jiff::Timestamp;
use tokio::sync::watch;

use super::AppendError;
use crate::telemetry::status::Totals;

/// Told how long each commit took, fsync included.
pub type ObserveCommit = Box<dyn Fn(Duration) + Send + Sync>;

/// Why the journal cannot go on in this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What SQLite said.
    pub reason: String,
    /// Whether the database itself is damaged (else it is the disk).
    pub is_damage: bool,
}

pub(super) struct Shared {
    totals: ArcSwap<Totals>,
    refusal: ArcSwapOption<AppendError>,
    oldest: ArcSwapOption<Timestamp>,
    failure: watch::Sender<Option<Failure>>,
    observe_commit: ObserveCommit,
}

impl Shared {
    pub(super) fn new(totals: Totals, observe_commit: ObserveCommit) -> Self {
        Self {
            totals: ArcSwap::from_pointee(totals),
            refusal: ArcSwapOption::empty(),
            oldest: ArcSwapOption::empty(),
            failure: watch::Sender::new(None),
            observe_commit,
        }
    }

    pub(super) fn totals(&self) -> Arc<Totals> {
        self.totals.load_full()
    }

    /// A `commit_time` of zero is none.
    pub(super) fn publish(&self, totals: Totals, commit_time: Duration) {
        if totals.backlog_events == 0 {
            self.oldest.store(None);
        } else if self.oldest.load().is_none() {
            self.oldest.store(Some(Arc::new(Timestamp::now())));
        }
        self.totals.store(Arc::new(totals));
        if !commit_time.is_zero() {
            (self.observe_commit)(commit_time);
        }
    }

    pub(super) fn refusal(&self) -> Option<AppendError> {
        self.refusal.load().as_deref().cloned()
    }

    pub(super) fn set_refusal(&self, refusal: Option<AppendError>) {
        self.refusal.store(refusal.map(Arc::new));
    }

    pub(super) fn oldest(&self) -> Option<Timestamp> {
        self.oldest.load().as_deref().copied()
    }

    pub(super) fn set_oldest(&self, oldest: Option<Timestamp>) {
        self.oldest.store(oldest.map(Arc::new));
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failure.borrow().is_some()
    }

    pub(super) fn fail(&self, reason: String, is_damage: bool) {
        self.failure
            .send_replace(Some(Failure { reason, is_damage }));
    }

    /// Fails when it is dropped by a panic: a process whose journal is gone must end.
    pub(super) fn guard(self: &Arc<Self>) -> Guard {
        Guard(self.clone())
    }

    pub(super) fn failures(&self) -> watch::Receiver<Option<Failure>> {
        self.failure.subscribe()
    }
}

/// See [`Shared::guard`].
pub(super) struct Guard(Arc<Shared>);

impl Drop for Guard {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.set_refusal(Some(AppendError::Closed));
            self.0.fail("the journal's thread panicked".into(), false);
        }
    }
}
