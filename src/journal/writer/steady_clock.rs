//! Whether the wall clock can be trusted with deletions.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

/// How long the wall clock must have gone as fast as the monotonic one.
const STEADY_MIN: Duration = Duration::from_mins(10);
/// A larger difference between the two clocks is a leap. Corrections by NTP are slower.
const LEAP_MIN: Duration = Duration::from_mins(1);

/// Compares the wall clock with the monotonic one since the start, or since the last leap.
#[derive(Debug)]
pub(super) struct SteadyClock {
    since: Instant,
    wall: Timestamp,
}

impl Default for SteadyClock {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            wall: Timestamp::now(),
        }
    }
}

impl SteadyClock {
    /// Whether events that are older than `age_max` may be deleted: the clock has been steady for ten
    /// minutes, or for `age_max` if that is less.
    pub(super) fn is_steady_for(&mut self, age_max: Duration, now: Timestamp) -> bool {
        let elapsed = self.since.elapsed();
        let leap =
            now.duration_since(self.wall) - SignedDuration::try_from(elapsed).unwrap_or_default();
        if leap.unsigned_abs() > LEAP_MIN {
            tracing::warn!(
                leap_seconds = leap.as_secs(),
                "the clock has leapt; nothing is deleted because of its age for {STEADY_MIN:?}"
            );
            *self = Self {
                since: Instant::now(),
                wall: now,
            };
            return age_max.is_zero();
        }
        elapsed >= STEADY_MIN.min(age_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leap_delays_deletions_because_of_age() {
        let week = Duration::from_hours(24 * 7);
        let now = Timestamp::now();
        let began = |ago: Duration| SteadyClock {
            since: Instant::now().checked_sub(ago).unwrap(),
            wall: now - ago,
        };
        let hour = Duration::from_hours(1);
        assert!(!SteadyClock::default().is_steady_for(week, now), "a start");
        assert!(began(hour).is_steady_for(week, now));
        for leap in [
            SignedDuration::from_hours(720),
            SignedDuration::from_hours(-2),
        ] {
            let mut clock = began(hour);
            assert!(!clock.is_steady_for(week, now + leap));
            assert!(!clock.is_steady_for(week, now + leap), "not at once");
        }
        assert!(SteadyClock::default().is_steady_for(Duration::ZERO, now));
    }
}
