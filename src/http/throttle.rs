//! Keeps a log line that anybody can cause from filling the log.

use std::sync::Mutex;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_lines_at_once_one_is_written() {
        let throttle = Throttle::default();
        assert_eq!((0..100).filter(|_| throttle.permits()).count(), 1);
    }
}
