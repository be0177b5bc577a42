//! What the writer's thread tells everybody else: the counts after the last commit, whether
//! webhooks would be refused, and whether it has given up.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use jiff::Timestamp;
use tokio::sync::watch;

use super::store::{LOCK_PATIENCE, Others};
use super::totals::Counts;
use super::{APPEND_PATIENCE, AppendError};
use crate::telemetry::status::{DiskStatus, Totals};

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
    counts: Counts,
    refusal: ArcSwapOption<AppendError>,
    oldest: ArcSwapOption<Timestamp>,
    disk: ArcSwap<DiskStatus>,
    others: Arc<Others>,
    /// Since when the writer is at the disk; `None` between two commits.
    writing_since: ArcSwapOption<Instant>,
    failure: watch::Sender<Option<Failure>>,
    observe_commit: ObserveCommit,
}

impl Shared {
    pub(super) fn new(counts: Counts, others: Arc<Others>, observe_commit: ObserveCommit) -> Self {
        Self {
            counts,
            refusal: ArcSwapOption::empty(),
            oldest: ArcSwapOption::empty(),
            disk: ArcSwap::default(),
            others,
            writing_since: ArcSwapOption::empty(),
            failure: watch::Sender::new(None),
            observe_commit,
        }
    }

    pub(super) fn totals(&self) -> Totals {
        self.counts.totals()
    }

    /// Something was committed. A `commit_time` of zero is none.
    pub(super) fn committed(&self, commit_time: Duration) {
        if self.counts.is_backlog_empty() {
            self.oldest.store(None);
        } else if self.oldest.load().is_none() {
            self.oldest.store(Some(Arc::new(Timestamp::now())));
        }
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

    /// What other programs do to the database, if they are in the way.
    pub(super) fn others(&self) -> Option<String> {
        self.others.sentence()
    }

    /// Why a webhook of ordinary size would not be held now, for people.
    pub(super) fn obstacle(&self) -> Option<String> {
        // Less than the patience itself: the webhook that it has just run out for began to wait first.
        let is_long = |waited: &Duration| *waited >= APPEND_PATIENCE.saturating_sub(LOCK_PATIENCE);
        if let Some(refusal) = self.refusal() {
            return Some(refusal.to_string());
        }
        if let Some((waited, sentence)) = self.others.writer()
            && is_long(&waited)
        {
            return Some(sentence);
        }
        let writing = self.writing_since.load().as_deref().map(Instant::elapsed);
        let writing = writing.filter(is_long)?;
        Some(format!(
            "the journal's disk has not finished a write for {} seconds",
            writing.as_secs()
        ))
    }

    pub(super) fn is_writing(&self, is_writing: bool) {
        let since = is_writing.then(|| Arc::new(Instant::now()));
        self.writing_since.store(since);
    }

    pub(super) fn disk(&self) -> DiskStatus {
        **self.disk.load()
    }

    pub(super) fn set_disk(&self, disk: DiskStatus) {
        self.disk.store(Arc::new(disk));
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
