//! The state that the writer thread publishes to all other threads: the counts after the last
//! commit, whether webhooks would be refused, and whether the writer has failed.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use jiff::Timestamp;
use tokio::sync::watch;

use super::locks::{ForeignLocks, LOCK_PATIENCE};
use super::totals::Counts;
use super::{APPEND_PATIENCE, WriteError};
use crate::telemetry::status::DiskStatus;

/// Called after each commit with its duration, fsync included.
pub type ObserveCommit = Box<dyn Fn(Duration) + Send + Sync>;

/// Why the journal cannot continue in this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalFailure {
    /// The error message of SQLite, or that the writer's thread has panicked.
    pub reason: String,
    /// Whether the database itself is damaged. Otherwise the disk failed, or the thread panicked.
    pub is_damage: bool,
}

pub(super) struct Shared {
    pub(super) counts: Counts,
    refusal: ArcSwapOption<WriteError>,
    pub(super) oldest: ArcSwapOption<Timestamp>,
    pub(super) disk: ArcSwap<DiskStatus>,
    pub(super) foreign_locks: Arc<ForeignLocks>,
    /// Since when events can be published; `None` while there is no broker.
    connected_since: ArcSwapOption<Instant>,
    /// Since when the writer has been writing a group; `None` between two groups.
    writing_since: ArcSwapOption<Instant>,
    pub(super) failure: watch::Sender<Option<JournalFailure>>,
    observe_commit: ObserveCommit,
}

impl Shared {
    pub(super) fn new(
        counts: Counts,
        foreign_locks: Arc<ForeignLocks>,
        observe_commit: ObserveCommit,
    ) -> Self {
        Self {
            counts,
            refusal: ArcSwapOption::empty(),
            oldest: ArcSwapOption::empty(),
            disk: ArcSwap::default(),
            foreign_locks,
            connected_since: ArcSwapOption::empty(),
            writing_since: ArcSwapOption::empty(),
            failure: watch::Sender::new(None),
            observe_commit,
        }
    }

    /// Records a commit. With a `commit_time` of zero, the duration is not observed.
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

    pub(super) fn refusal(&self) -> Option<WriteError> {
        self.refusal.load().as_deref().cloned()
    }

    pub(super) fn set_refusal(&self, refusal: Option<WriteError>) {
        self.refusal.store(refusal.map(Arc::new));
    }

    /// Why a webhook of ordinary size would not be stored now, as text for operators.
    pub(super) fn obstacle(&self) -> Option<String> {
        // Shorter than the patience by one wait for the lock: a webhook that has just been refused
        // began to wait earlier than this was measured.
        let is_long = |waited: &Duration| *waited >= APPEND_PATIENCE.saturating_sub(LOCK_PATIENCE);
        if let Some(refusal) = self.refusal() {
            return Some(refusal.to_string());
        }
        if let Some((waited, sentence)) = self.foreign_locks.writer()
            && is_long(&waited)
        {
            return Some(sentence);
        }
        let writing = self.writing_for().filter(is_long)?;
        Some(format!(
            "the journal's disk has not finished a write for {} seconds",
            writing.as_secs()
        ))
    }

    pub(super) fn writing_for(&self) -> Option<Duration> {
        let since = self.writing_since.load();
        since.as_deref().map(Instant::elapsed)
    }

    pub(super) fn set_connected(&self, is_connected: bool) {
        if self.connected_since.load().is_some() != is_connected {
            let since = is_connected.then(|| Arc::new(Instant::now()));
            self.connected_since.store(since);
        }
    }

    /// For how long events could be published without interruption; zero while they cannot.
    pub(super) fn connected_for(&self) -> Duration {
        let since = self.connected_since.load();
        since.as_deref().map_or(Duration::ZERO, Instant::elapsed)
    }

    pub(super) fn set_writing(&self, is_writing: bool) {
        let since = is_writing.then(|| Arc::new(Instant::now()));
        self.writing_since.store(since);
    }

    pub(super) fn set_oldest(&self, oldest: Option<Timestamp>) {
        self.oldest.store(oldest.map(Arc::new));
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failure.borrow().is_some()
    }

    pub(super) fn fail(&self, reason: String, is_damage: bool) {
        self.failure
            .send_replace(Some(JournalFailure { reason, is_damage }));
    }
}

/// Reports a failure if the thread that holds it panics: the process must not continue without its
/// journal.
pub(super) struct Guard(pub(super) Arc<Shared>);

impl Drop for Guard {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.set_refusal(Some(WriteError::Closed));
            self.0.fail("the journal's thread panicked".into(), false);
        }
    }
}
