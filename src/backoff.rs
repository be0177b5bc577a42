//! Delays between attempts: exponential, with jitter where many attempts could coincide.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

/// After this many attempts the delay stops growing.
const GROWING_ATTEMPTS_MAX: u32 = 32;

/// The delay after this many failed attempts, counted from 1. It doubles from `min` to `max`.
#[must_use]
pub fn delay(min: Duration, max: Duration, attempts: u32) -> Duration {
    growing(min, max, 2.0, attempts)
}

fn growing(min: Duration, max: Duration, factor: f32, attempts: u32) -> Duration {
    let skipped = attempts.clamp(1, GROWING_ATTEMPTS_MAX) - 1;
    let delays = ExponentialBuilder::new()
        .with_factor(factor)
        .with_min_delay(min)
        .with_max_delay(max)
        .without_max_times();
    let delay = delays.build().nth(skipped as usize);
    delay.map_or(max, |delay| delay.min(max))
}

/// Delays from a minimum to a maximum. Each is multiplied by a random factor between 0.5 and 1, so
/// that what failed together is not tried again together.
#[derive(Debug, Clone)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    rng_state: u64,
}

impl Backoff {
    /// Creates delays from `min` to `max`. The same seed gives the same jitter.
    #[must_use]
    pub fn new(min: Duration, max: Duration, seed: u64) -> Self {
        Self {
            min,
            max,
            rng_state: seed,
        }
    }

    /// Creates delays from `min` to `max` with a random seed.
    #[must_use]
    pub fn random(min: Duration, max: Duration) -> Self {
        Self::new(min, max, RandomState::new().build_hasher().finish())
    }

    /// The delay after this many failed attempts, counted from 1. It doubles with each.
    pub fn delay(&mut self, attempts: u32) -> Duration {
        self.delay_growing(2.0, attempts)
    }

    /// Like [`Backoff::delay`], but each delay is `factor` times the one before.
    pub fn delay_growing(&mut self, factor: f32, attempts: u32) -> Duration {
        let whole = growing(self.min, self.max, factor, attempts);
        whole.mul_f64(0.5 + 0.5 * self.next_chance())
    }

    /// A random number from 0 to 1, by `SplitMix64`.
    fn next_chance(&mut self) -> f64 {
        self.rng_state = self.rng_state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.rng_state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        f64::from((mixed >> 32) as u32) / f64::from(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_to_the_maximum_with_half_jitter() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new(second, 30 * second, 7);
        for (attempts, whole) in [
            (1, 1),
            (2, 2),
            (3, 4),
            (5, 16),
            (6, 30),
            (7, 30),
            (4_000, 30),
        ] {
            for _ in 0..100 {
                let delay = backoff.delay(attempts);
                assert!(
                    delay <= whole * second && delay >= whole * second / 2,
                    "{attempts}: {delay:?}"
                );
            }
        }
    }

    #[test]
    fn jitter_spreads_events_that_failed_together() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30), 7);
        let delays: std::collections::BTreeSet<_> = (0..100).map(|_| backoff.delay(6)).collect();
        assert!(delays.len() > 90, "{delays:?}");
    }
}
