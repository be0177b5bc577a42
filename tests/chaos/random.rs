//! Pseudorandom numbers that depend on the seed only (`SplitMix64`): the same on every machine and
//! with every version of every library, so that a seed identifies a schedule forever.

use std::time::Duration;

/// A sequence of numbers.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The sequence for this seed and purpose.
    pub fn new(seed: u64, purpose: u64) -> Self {
        Self(mix(mix(seed) ^ purpose))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number less than `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// An index into something of this length.
    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).expect("less than a length")
    }

    /// True in `percent` of 100 cases.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// A number in `0.0..1.0`.
    pub fn fraction(&mut self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
        let numerator = (self.next() >> 11) as f64;
        numerator / 9_007_199_254_740_992.0
    }

    /// A duration with a uniformly distributed logarithm: each order of magnitude is equally
    /// likely.
    pub fn log_uniform(&mut self, from: Duration, to: Duration) -> Duration {
        let (low, high) = (from.as_secs_f64().ln(), to.as_secs_f64().ln());
        Duration::from_secs_f64((low + (high - low) * self.fraction()).exp())
    }

    /// An exponentially distributed duration, as between independent events; at most five times the
    /// mean.
    pub fn exponential(&mut self, mean: Duration) -> Duration {
        let times = -(1.0 - self.fraction()).ln();
        mean.mul_f64(times.min(5.0))
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.index(last + 1));
        }
    }
}

/// Mixes the bits of a number.
pub fn mix(number: u64) -> u64 {
    let mut bits = number;
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
