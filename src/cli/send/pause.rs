//! DeskDirector's rule: a webhook whose delivery fails once is paused, and what happens meanwhile is
//! never sent. Each of the two webhooks is paused on its own.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::life::Occasion;

/// Which of the two webhooks are paused, for all connections.
pub struct Pauses {
    length: Duration,
    until: Mutex<[Option<Instant>; 2]>,
}

impl Pauses {
    /// No webhook is paused; a pause takes that long.
    pub fn new(length: Duration) -> Self {
        Self {
            length,
            until: Mutex::default(),
        }
    }

    /// How long a pause takes.
    pub fn length(&self) -> Duration {
        self.length
    }

    /// Whether that webhook is paused.
    pub fn covers(&self, occasion: Occasion, now: Instant) -> bool {
        self.lock()[occasion as usize].is_some_and(|until| now < until)
    }

    /// A delivery failed. False if the webhook was paused already.
    pub fn begin(&self, occasion: Occasion, now: Instant) -> bool {
        let until = &mut self.lock()[occasion as usize];
        let is_first = until.is_none_or(|until| now >= until);
        if is_first {
            *until = Some(now + self.length);
        }
        is_first
    }

    fn lock(&self) -> MutexGuard<'_, [Option<Instant>; 2]> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_pauses_one_webhook_for_the_whole_time() {
        let pauses = Pauses::new(Duration::from_secs(10));
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        assert!(!pauses.covers(Occasion::New, start));
        assert!(pauses.begin(Occasion::New, start));
        assert!(
            !pauses.begin(Occasion::New, later(5)),
            "it does not begin anew"
        );
        assert!(pauses.covers(Occasion::New, later(9)));
        assert!(!pauses.covers(Occasion::Changed, later(9)));
        assert!(!pauses.covers(Occasion::New, later(10)));
        assert!(pauses.begin(Occasion::New, later(10)));
    }
}
