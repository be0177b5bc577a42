//! When again: exponential delays with jitter. Pure: its chance comes from a seed.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

/// How fast the delays grow after a nack. A queue that refuses is full for longer than a moment, and
/// with every attempt the other queues of the same key receive another copy.
const NACKED_FACTOR: f32 = 4.0;
/// Beyond that many attempts the delay does not grow any more.
const GROWING_ATTEMPTS_MAX: u32 = 32;

/// Delays that double from a least to a longest one; each is cut by chance to between one half
/// and the whole of it, so that what failed together does not come back together.
#[derive(Debug, Clone)]
pub struct Backoff {
    delays: ExponentialBuilder,
    nacked: ExponentialBuilder,
    chance: u64,
}

impl Backoff {
    /// Delays from `delay_min` to `delay_max`; the same seed gives the same jitter.
    #[must_use]
    pub fn new(delay_min: Duration, delay_max: Duration, seed: u64) -> Self {
        let delays = ExponentialBuilder::new()
            .with_factor(2.0)
            .with_min_delay(delay_min)
            .with_max_delay(delay_max)
            .without_max_times();
        Self {
            delays,
            nacked: delays.with_factor(NACKED_FACTOR),
            chance: seed,
        }
    }

    /// How long to wait after that many failed attempts, counted from 1.
    pub fn delay(&mut self, attempts: u32) -> Duration {
        self.jittered(self.delays, attempts)
    }

    /// The same after a nack: from the same least to the same longest delay, in fewer steps.
    pub fn delay_of_nacked(&mut self, attempts: u32) -> Duration {
        self.jittered(self.nacked, attempts)
    }

    fn jittered(&mut self, delays: ExponentialBuilder, attempts: u32) -> Duration {
        let skipped = attempts.clamp(1, GROWING_ATTEMPTS_MAX) - 1;
        let whole = delays.build().nth(skipped as usize).unwrap_or_default();
        whole.mul_f64(0.5 + 0.5 * self.next_chance())
    }

    /// From 0 to 1, by `SplitMix64`.
    fn next_chance(&mut self) -> f64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.chance;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        f64::from((mixed >> 32) as u32) / f64::from(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest_and_jitter_takes_at_most_half() {
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

    /// The copies that other queues of the key receive while one of them is full.
    #[test]
    fn a_full_queue_costs_few_copies_at_default() {
        let (min, max) = (Duration::from_millis(100), Duration::from_secs(30));
        let copies = |seconds: u64| {
            let mut most = 0;
            for seed in 0..100 {
                let mut backoff = Backoff::new(min, max, seed);
                let (mut at, mut copies) = (Duration::ZERO, 0);
                while copies < 12 && at <= Duration::from_secs(seconds) {
                    copies += 1;
                    at += backoff.delay_of_nacked(copies);
                }
                most = most.max(copies);
            }
            most
        };
        assert_eq!((copies(1), copies(10), copies(60)), (3, 5, 8));
    }

    #[test]
    fn what_failed_together_does_not_come_back_together() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30), 7);
        let delays: std::collections::BTreeSet<_> = (0..100).map(|_| backoff.delay(6)).collect();
        assert!(delays.len() > 90, "{delays:?}");
    }
}
