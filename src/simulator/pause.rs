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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_pauses_one_webhook() {
        let pauses = Pauses::new(Duration::from_secs(10));
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        assert!(!pauses.covers(WebhookKind::New, start));
        assert!(pauses.begin(WebhookKind::New, start));
        assert!(
            !pauses.begin(WebhookKind::New, later(5)),
            "the pause is not extended"
        );
        assert!(pauses.covers(WebhookKind::New, later(9)));
        assert!(!pauses.covers(WebhookKind::Changed, later(9)));
        assert!(!pauses.covers(WebhookKind::New, later(10)));
        assert!(pauses.begin(WebhookKind::New, later(10)));
    }
}
