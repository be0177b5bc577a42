//! What this room needs of the journal. It exists so that the room can be tested without a disk.

use std::future::Future;
use std::sync::Arc;

use crate::journal::{AppendError, Journal};
use crate::telemetry::status::Totals;
use crate::webhook::Webhook;

/// Holds webhooks durably and knows its own counts.
pub trait Hold: Clone + Send + Sync + 'static {
    /// Returns when the whole webhook is durable.
    fn append(
        &self,
        webhook: Webhook,
    ) -> impl Future<Output = Result<(), AppendError>> + Send + 'static;

    /// Why a webhook would be refused now.
    fn refusal(&self) -> Option<AppendError>;

    /// The counts, all of one moment.
    fn totals(&self) -> Arc<Totals>;

    /// Seconds since the oldest unsettled event was received; 0 without a backlog.
    fn oldest_seconds(&self) -> f64;
}

impl Hold for Journal {
    fn append(
        &self,
        webhook: Webhook,
    ) -> impl Future<Output = Result<(), AppendError>> + Send + 'static {
        let journal = self.clone();
        async move { journal.append(webhook).await }
    }

    fn refusal(&self) -> Option<AppendError> {
        Self::refusal(self)
    }

    fn totals(&self) -> Arc<Totals> {
        Self::totals(self)
    }

    fn oldest_seconds(&self) -> f64 {
        Self::oldest_seconds(self)
    }
}
