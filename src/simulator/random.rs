//! Pseudo-random numbers that are the same for the same seed (`SplitMix64`).

/// A stream of pseudo-random numbers, by its seed.
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to below `bound`, which must not be 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A number from 0 to below `length`, which must not be 0.
    pub(super) fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).expect("an index is below a length")
    }

    /// One element of a slice, which must not be empty, and its index.
    pub(super) fn draw<'t, T>(&mut self, of: &'t [T]) -> (u64, &'t T) {
        let index = self.index(of.len());
        (index as u64, &of[index])
    }
}
