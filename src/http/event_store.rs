//! What this module needs of the journal, as a trait, so that it can be tested without a disk.

use std::future::Future;

use crate::journal::{Journal, WriteError};
use crate::telemetry::status::{DiskStatus, Totals};
use crate::webhook::Webhook;

/// Stores webhooks durably and reports its own counts.
pub trait EventStore: Clone + Send + Sync + 'static {
    /// Returns when the whole webhook is durable. Drops `reserved` when the webhook's memory is
    /// free, even if the caller has stopped waiting by then.
    fn append(
        &self,
        webhook: Webhook,
        reserved: Box<dyn Send>,
    ) -> impl Future<Output = Result<(), WriteError>> + Send + 'static;

    /// Why a webhook would be refused now; `None` if it would be accepted.
    fn refusal(&self) -> Option<WriteError>;

    /// Why a webhook of ordinary size would not be stored now, as text for operators.
    fn obstacle(&self) -> Option<String>;

    /// Which other program's lock blocks the journal, as a sentence; `None` if there is none.
    fn foreign_locks(&self) -> Option<String>;

    /// Free space, sizes and limits of the journal's disk.
    fn disk(&self) -> DiskStatus;

    /// The counts, all from the same moment.
    fn totals(&self) -> Totals;

    /// Seconds since the oldest pending event was received; 0 without a backlog.
    fn oldest_seconds(&self) -> f64;
}

impl EventStore for Journal {
    fn append(
        &self,
        webhook: Webhook,
        reserved: Box<dyn Send>,
    ) -> impl Future<Output = Result<(), WriteError>> + Send + 'static {
        let journal = self.clone();
        async move { journal.append_with(webhook, reserved).await }
    }

    fn refusal(&self) -> Option<WriteError> {
        Self::refusal(self)
    }

    fn obstacle(&self) -> Option<String> {
        Self::obstacle(self)
    }

    fn foreign_locks(&self) -> Option<String> {
        Self::foreign_locks(self)
    }

    fn disk(&self) -> DiskStatus {
        Self::disk(self)
    }

    fn totals(&self) -> Totals {
        Self::totals(self)
    }

    fn oldest_seconds(&self) -> f64 {
        Self::oldest_seconds(self)
    }
}
