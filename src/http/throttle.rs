//! Throttles log lines that any client can cause, so that they do not fill the log.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Permits one line of each kind in a period, by default in a second.
#[derive(Debug)]
pub(super) struct Throttles {
    period: Duration,
    kinds: Mutex<HashMap<&'static str, Counted>>,
}

#[derive(Debug, Default)]
struct Counted {
    last: Option<Instant>,
    suppressed: u64,
}

impl Default for Throttles {
    fn default() -> Self {
        Self::every(Duration::from_secs(1))
    }
}

impl Throttles {
    pub(super) fn every(period: Duration) -> Self {
        Self {
            period,
            kinds: Mutex::default(),
        }
    }

    /// Whether a line of this kind may be written now: if so, the number of lines suppressed since
    /// the last one.
    pub(super) fn should_log(&self, kind: &'static str) -> Option<u64> {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = kinds.entry(kind).or_default();
        if counted
            .last
            .is_some_and(|last| last.elapsed() < self.period)
        {
            counted.suppressed += 1;
            return None;
        }
        counted.last = Some(Instant::now());
        Some(std::mem::take(&mut counted.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_lines_are_throttled_separately() {
        let throttles = Throttles::default();
        assert_eq!(throttles.should_log("one"), Some(0));
        assert_eq!(throttles.should_log("one"), None);
        assert_eq!(throttles.should_log("another"), Some(0));
        let begun = Instant::now().checked_sub(throttles.period);
        throttles.kinds.lock().unwrap().get_mut("one").unwrap().last = begun;
        assert_eq!(throttles.should_log("one"), Some(1));
        assert_eq!(throttles.should_log("one"), None);
    }
}
