//! Says in the log when webhooks are accepted again after the journal had refused them, once for each
//! such time: without it the last line would be the refusal.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::Ingress;
use crate::http::hold::Hold;

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
    /// A webhook was refused. The first one has the journal watched, if it knows that it refuses:
    /// a disk that is only slow shows with the next webhook.
    pub(super) fn refused<H: Hold>(ingress: &Arc<Ingress<H>>) {
        let mut refusing = ingress.recovery.refusing();
        if let Some(refusing) = &mut *refusing {
            refusing.webhooks += 1;
            return;
        }
        *refusing = Some(Refusing {
            since: Instant::now(),
            webhooks: 1,
        });
        if ingress.journal.refusal().is_some() {
            tokio::spawn(watch(Arc::downgrade(ingress)));
        }
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
async fn watch<H: Hold>(ingress: Weak<Ingress<H>>) {
    loop {
        sleep(ASKED_EVERY).await;
        let Some(ingress) = ingress.upgrade() else {
            return;
        };
        if ingress.journal.refusal().is_none() {
            return ingress.recovery.accepted();
        }
    }
}
