//! Says in the log when webhooks are accepted again after the journal had refused them, once for each
//! such time: without it the last line would be the refusal.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::Ingress;
use super::refusal::Refusal;
use crate::http::hold::Hold;
use crate::journal::AppendError;

/// How often the journal is asked: its sender may be paused, so that nobody else asks for long.
const ASKED_EVERY: Duration = Duration::from_secs(1);

/// Whether webhooks are refused for the journal's sake at the moment.
#[derive(Debug, Default)]
pub(super) struct Recovery(Mutex<Option<Refusing>>);

#[derive(Debug)]
struct Refusing {
    since: Instant,
    webhooks: u64,
}

impl Recovery {
    /// A webhook was refused. The first one has the journal watched; only a disk that is slow shows
    /// no earlier than with the next webhook.
    pub(super) fn refused<H: Hold>(ingress: &Arc<Ingress<H>>, refusal: &Refusal) {
        let mut refusing = ingress.recovery.refusing();
        if let Some(refusing) = &mut *refusing {
            refusing.webhooks += 1;
            return;
        }
        *refusing = Some(Refusing {
            since: Instant::now(),
            webhooks: 1,
        });
        let backlog_bytes = match refusal {
            Refusal::SlowDisk => return,
            // It may have room for smaller ones: less has to wait than now.
            Refusal::Journal(AppendError::BacklogFull) => ingress.journal.totals().backlog_bytes,
            _ => u64::MAX,
        };
        tokio::spawn(watch(Arc::downgrade(ingress), backlog_bytes));
    }

    /// A webhook was accepted, or would be. Not believed at once: near the limit a small webhook may
    /// be accepted between two that are not.
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

/// Weak, so that a bridge that stops is not kept waiting.
async fn watch<H: Hold>(ingress: Weak<Ingress<H>>, backlog_bytes: u64) {
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
