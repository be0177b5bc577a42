//! The disk: holds every accepted event from before its 2xx until it is settled. The only room
//! that names rusqlite.

use std::sync::Arc;

use crate::telemetry::status::Totals;
use crate::webhook::Webhook;

/// A handle on the journal of this process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Journal {}

/// Why a webhook is not held. All of them are answered 503.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The unsettled part has reached `journal.backlog_bytes_max`.
    #[error("the journal's backlog is full")]
    BacklogFull,
    /// Less than `journal.disk_free_min` is free, or the disk took no more.
    #[error("the journal's disk is full")]
    DiskFull,
    /// The disk fails.
    #[error("the journal's disk fails")]
    DiskFailing,
    /// The process is going down.
    #[error("the journal is closed")]
    Closed,
}

impl Journal {
    /// Holds a whole webhook; returns after the commit that has all its events was fsynced.
    ///
    /// # Errors
    /// Nothing of it is held then (or, after a time-out of the disk, its outcome is unknown).
    pub async fn append(&self, webhook: Webhook) -> Result<(), AppendError> {
        let _ = webhook;
        Err(AppendError::Closed)
    }

    /// The counts after the last commit.
    #[must_use]
    pub fn totals(&self) -> Arc<Totals> {
        Arc::default()
    }

    /// Why a webhook would be refused now; `None` if it would be held.
    #[must_use]
    pub fn refusal(&self) -> Option<AppendError> {
        None
    }

    /// Seconds since the oldest unsettled event was received; 0 without a backlog.
    #[must_use]
    pub fn oldest_seconds(&self) -> f64 {
        0.0
    }
}
