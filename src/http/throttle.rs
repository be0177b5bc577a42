//! Keeps a log line that anybody can cause from filling the log.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two lines.
const PAUSE: Duration = Duration::from_secs(1);

/// Permits one line a second.
#[derive(Debug, Default)]
pub(super) struct Throttle(Mutex<Option<Instant>>);

impl Throttle {
    /// Whether a line may be written now.
    pub(super) fn permits(&self) -> bool {
        // Whoever does not get the lock is beside somebody who writes just now.
        let Ok(mut last) = self.0.try_lock() else {
            return false;
        };
        let is_due = last.is_none_or(|last| last.elapsed() >= PAUSE);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }
}

/// Permits one line a second of each kind.
#[derive(Debug, Default)]
pub(super) struct Throttles(Mutex<HashMap<&'static str, Counted>>);

#[derive(Debug)]
struct Counted {
    last: Instant,
    suppressed: u64,
}

impl Throttles {
    /// Whether a line of this kind may be written now: then how many were not since the last one.
    pub(super) fn should_log(&self, kind: &'static str) -> Option<u64> {
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let Some(counted) = kinds.get_mut(kind) else {
            let first = Counted {
                last: now,
                suppressed: 0,
            };
            kinds.insert(kind, first);
            return Some(0);
        };
        if now.duration_since(counted.last) < PAUSE {
            counted.suppressed += 1;
            return None;
        }
        counted.last = now;
        Some(std::mem::take(&mut counted.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_one_kind_keep_no_other_kind_from_being_written() {
        let throttles = Throttles::default();
        assert_eq!(throttles.should_log("one"), Some(0));
        assert_eq!(throttles.should_log("one"), None);
        assert_eq!(throttles.should_log("another"), Some(0));
        let begun = Instant::now().checked_sub(PAUSE).unwrap();
        throttles.0.lock().unwrap().get_mut("one").unwrap().last = begun;
        assert_eq!(throttles.should_log("one"), Some(1));
        assert_eq!(throttles.should_log("one"), None);
    }

    #[test]
    fn of_many_lines_at_once_one_is_written() {
        let throttle = Throttle::default();
        assert_eq!((0..100).filter(|_| throttle.permits()).count(), 1);
    }
}
