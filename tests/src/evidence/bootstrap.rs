//! The standard error of a share of samples, by block bootstrap.
//!
//! Samples that follow each other are alike (a program is preempted as a whole, a machine stalls for a while), so that
//! the formula for independent ones promises too much. Blocks of time longer than that memory are independent; drawing
//! whole blocks anew, with replacement, shows how far the share would vary from one recording to the next.

const RESAMPLES: usize = 1000;

/// What a block of time has of the part in question, and of the whole that it is a part of.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Block {
    /// Of the part in question.
    pub part: f64,
    /// Of the whole.
    pub whole: f64,
}

/// The share of the part in all blocks together.
pub fn share(blocks: &[Block]) -> f64 {
    let (part, whole) = sums(blocks.iter());
    part / whole
}

/// The standard error of [`share`]. Equal blocks give equal errors: the draws are always the same.
pub fn standard_error(blocks: &[Block]) -> f64 {
    assert!(blocks.len() >= 20, "{} blocks say nothing about their spread", blocks.len());
    let mut draws = Draws(0x9e37_79b9_7f4a_7c15);
    let resampled = || {
        let (part, whole) = sums((0..blocks.len()).map(|_| &blocks[draws.below(blocks.len())]));
        part / whole
    };
    let shares: Vec<f64> = std::iter::repeat_with(resampled).take(RESAMPLES).collect();
    let mean = shares.iter().sum::<f64>() / RESAMPLES as f64;
    let squares: f64 = shares.iter().map(|share| (share - mean).powi(2)).sum();
    (squares / (RESAMPLES - 1) as f64).sqrt()
}

fn sums<'a>(blocks: impl Iterator<Item = &'a Block>) -> (f64, f64) {
    blocks.fold((0.0, 0.0), |(part, whole), block| (part + block.part, whole + block.whole))
}

/// Pseudorandom numbers (xorshift64*).
struct Draws(u64);

impl Draws {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        ((u128::from(self.next()) * limit as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCKS: usize = 400;
    const SAMPLES: usize = 50;
    const SHARE: f64 = 0.2;

    /// Blocks of samples of which each, or each block as a whole, is of the part with a chance of [`SHARE`].
    fn blocks(alike: bool) -> Vec<Block> {
        let mut draws = Draws(7);
        let mut hit = || if (draws.below(1000) as f64) < SHARE * 1000.0 { 1.0 } else { 0.0 };
        let mut block = || {
            let hits: f64 = if alike { hit() * SAMPLES as f64 } else { (0..SAMPLES).map(|_| hit()).sum() };
            Block { part: hits, whole: SAMPLES as f64 }
        };
        (0..BLOCKS).map(|_| block()).collect()
    }

    fn assert_near(value: f64, expected: f64) {
        assert!((value / expected - 1.0).abs() < 0.15, "{value} is not near {expected}");
    }

    #[test]
    fn independent_samples_have_the_error_of_the_formula() {
        let blocks = blocks(false);
        let formula = (SHARE * (1.0 - SHARE) / (BLOCKS * SAMPLES) as f64).sqrt();
        assert_near(standard_error(&blocks), formula);
        assert!((share(&blocks) - SHARE).abs() < 4.0 * formula);
    }

    #[test]
    fn samples_that_are_alike_within_a_block_count_as_one() {
        assert_near(standard_error(&blocks(true)), (SHARE * (1.0 - SHARE) / BLOCKS as f64).sqrt());
    }

    #[test]
    fn the_error_is_the_same_each_time() {
        let blocks = blocks(false);
        assert_eq!(standard_error(&blocks), standard_error(&blocks));
    }
}
