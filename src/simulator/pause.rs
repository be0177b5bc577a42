//! DeskDirector's rule: a webhook is paused after one failed delivery, and what happens during the
//! pause is never sent. The two webhooks are paused independently.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::WebhookKind;

/// Until when each of the two webhooks is paused.
pub(super) struct Pauses {
    length: Duration,
    until: [Cell<Option<Instant>>; 2],
}

impl Pauses {
    /// No webhook is paused yet; each pause takes `length`.
    pub(super) fn new(length: Duration) -> Self {
        let until = Default::default();
        Self { length, until }
    }

    /// Whether that webhook is paused.
    pub(super) fn covers(&self, kind: WebhookKind, now: Instant) -> bool {
        let until = self.until[kind as usize].get();
        until.is_some_and(|until| now < until)
    }

    /// Pauses a webhook after a failed delivery. Returns false if it was paused already; that does
    /// not extend the pause.
    pub(super) fn begin(&self, kind: WebhookKind, now: Instant) -> bool {
        let is_first = !self.covers(kind, now);
        if is_first {
            self.until[kind as usize].set(Some(now + self.length));
        }
        is_first
    }
}
