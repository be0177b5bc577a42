//! What this room needs of the journal. It exists so that the room can be tested without a disk.

use std::future::Future;

use crate::journal::{AppendError, Journal};
use crate::telemetry::status::{DiskStatus, Totals};
use crate::webhook::Webhook;

/// Holds webhooks durably and knows its own counts.
pub trait Hold: Clone + Send + Sync + 'static {
    /// Returns when the whole webhook is durable. Drops `reserved` when the webhook's memory is
    /// free, even if the caller has stopped waiting by then.
    fn append(
        &self,
        webhook: Webhook,
        reserved: Box<dyn Send>,
    ) -> impl Future<Output = Result<(), AppendError>> + Send + 'static;

    /// Why a webhook would be refused now.
    fn refusal(&self) -> Option<AppendError>;

    /// Why a webhook of ordinary size would not be held now, for people.
    fn obstacle(&self) -> Option<String>;

    /// What other programs do to the journal, if they are in its way.
    fn others(&self) -> Option<String>;

    /// The journal's disk.
    fn disk(&self) -> DiskStatus;

    /// The counts, all of one moment.
    fn totals(&self) -> Totals;

    /// Seconds since the oldest unsettled event was received; 0 without a backlog.
    fn oldest_seconds(&self) -> f64;
}

impl Hold for Journal {
    fn append(
        &self,
        webhook: Webhook,
        reserved: Box<dyn Send>,
    ) -> impl Future<Output = Result<(), AppendError>> + Send + 'static {
        let journal = self.clone();
        async move { journal.append_with(webhook, reserved).await }
    }

    fn refusal(&self) -> Option<AppendError> {
        Self::refusal(self)
    }

    fn obstacle(&self) -> Option<String> {
        Self::obstacle(self)
    }

    fn others(&self) -> Option<String> {
        Self::others(self)
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
