//! Logs that webhooks are accepted again after the journal had refused them, once for each such
//! period. Without this, the refusal would be the last line of the log.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::Ingress;
use super::refusal::Refusal;
use crate::http::event_store::EventStore;
use crate::journal::WriteError;

/// Interval at which the journal is checked. The sender may have paused, so that it may take long
/// until the next webhook shows that the journal accepts webhooks again.
const ASKED_EVERY: Duration = Duration::from_secs(1);

/// Whether the journal refuses webhooks at the moment.
#[derive(Debug, Default)]
pub(super) struct Recovery(Mutex<Option<Refusing>>);

#[derive(Debug)]
struct Refusing {
    since: Instant,
    webhooks: u64,
}

impl Recovery {
    /// Records a refused webhook. The first one starts a task that watches the journal, but not
    /// after [`Refusal::SlowDisk`]: only the next webhook can show that the disk is fast again.
    pub(super) fn refused<H: EventStore>(ingress: &Arc<Ingress<H>>, refusal: &Refusal) {
        let (since, webhooks) = (Instant::now(), 0);
        let mut refusing = ingress.recovery.refusing();
        let refusing = refusing.get_or_insert(Refusing { since, webhooks });
        refusing.webhooks += 1;
        let backlog_bytes = match refusal {
            _ if refusing.webhooks > 1 => return,
            Refusal::SlowDisk => return,
            // Smaller webhooks may still be accepted, so wait until the backlog has become smaller.
            Refusal::Journal(WriteError::BacklogFull) => ingress.journal.totals().backlog_bytes,
            _ => u64::MAX,
        };
        tokio::spawn(watch(Arc::downgrade(ingress), backlog_bytes));
    }

    /// Records that a webhook was accepted, or would be. This counts only after `ASKED_EVERY`: near
    /// the limit, a small webhook may be accepted between two that are refused.
    pub(super) fn accepted(&self) {
        let is_over = |refusing: &mut Refusing| refusing.since.elapsed() >= ASKED_EVERY;
        let ended = self.refusing().take_if(is_over);
        if let Some(refusing) = ended {
            tracing::info!(
                refused = refusing.webhooks,
                seconds = refusing.since.elapsed().as_secs(),
                "accepting webhooks again"
            );
        }
    }

    fn refusing(&self) -> MutexGuard<'_, Option<Refusing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until the journal accepts webhooks again. The reference is weak, so that a bridge that
/// stops does not wait for this task.
async fn watch<H: EventStore>(ingress: Weak<Ingress<H>>, backlog_bytes: u64) {
    loop {
        sleep(ASKED_EVERY).await;
        let Some(ingress) = ingress.upgrade() else {
            return;
        };
        let journal = &ingress.journal;
        if journal.refusal().is_none() && journal.totals().backlog_bytes < backlog_bytes {
            return ingress.recovery.accepted();
        }
    }
}
