//! Randomness for sampling periods: not secret, but free of any rhythm of the guests.

/// Knuth's linear congruential generator of 64 bits (*The Art of Computer Programming*, volume 2, MMIX's). It costs two
/// instructions in an interrupt; of what it gives, only the high bits are used, which are the random ones.
pub(crate) struct Random(u64);

/// The shortest period of this mean, and how many there are: even over ±20 % of it.
pub(crate) const fn spread(mean: u64) -> (u64, u64) {
    let spread = mean * 2 / 5;
    (mean - spread / 2, spread + 1)
}

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Evenly from `[0, below)`.
    pub(crate) fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        ((u128::from(self.0) * u128::from(below)) >> 64) as u64
    }
}
