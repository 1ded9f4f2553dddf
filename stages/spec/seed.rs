//! Randomness as a function of where it is used: Philox4x32-10, a counter-based generator.
//!
//! J. Salmon, M. Moraes, R. Dror, D. Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC11. A draw is named by
//! the path of its seed and by its coordinates, so it is the same in any batch, shard, order or attempt.
//!
//! libtorch's own generators are never used: they are global, and their results depend on the CPU.

use serde::{Deserialize, Serialize};

/// What a stream of draws is for; separates streams whose other coordinates are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// Initial weights of a model.
    Weights = 1,
    /// Which problem comes n-th.
    Problem = 2,
    /// Whether a problem is held out.
    Split = 3,
    /// Masks of supervised fine-tuning.
    SftMask = 4,
    /// Everything of one training iteration.
    Iteration = 5,
    /// Everything of one prompt.
    Prompt = 6,
    /// Everything of one completion of a prompt's group.
    Sample = 7,
    /// The token drawn at a position.
    Token = 8,
    /// The order in which positions are unmasked.
    Position = 9,
    /// Timesteps of the Monte Carlo gradient.
    Timestep = 10,
    /// A shuffle.
    Permutation = 11,
    /// Everything of a measurement of estimators.
    Tuning = 12,
    /// A new adapter's matrices.
    Adapter = 13,
}

/// The key of a stream of random draws.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode,
)]
#[serde(transparent)]
pub struct Seed(u64);

impl Seed {
    /// The root of a tree of seeds.
    pub fn new(value: u64) -> Self {
        Self(value)
    }

    /// The seed of a branch. Children never share a counter with draws: their fourth word differs.
    #[must_use]
    pub fn child(self, purpose: Purpose, index: u64) -> Self {
        let [low, high, ..] =
            self.block([low_word(index), high_word(index), purpose as u32, u32::MAX]);
        Self(join(low, high))
    }

    /// 64 random bits at a coordinate.
    pub fn bits(self, step: u32, position: u32) -> u64 {
        let [low, high, ..] = self.block([step, position, 0, 0]);
        join(low, high)
    }

    /// A uniform number in [0, 1) with 53 random bits at a coordinate.
    pub fn uniform(self, step: u32, position: u32) -> f64 {
        let numerator = (self.bits(step, position) >> 11) as f64;
        numerator * (1.0 / 9_007_199_254_740_992.0)
    }

    /// A uniform integer in 0..bound (bound > 0) at a coordinate; its bias is below bound / 2^64.
    pub fn below(self, bound: u64, step: u32, position: u32) -> u64 {
        let wide = u128::from(self.bits(step, position)) * u128::from(bound);
        u64::try_from(wide >> 64).expect("a product of two u64, shifted by 64 bits, fits")
    }

    /// A uniformly random order of 0..n (Fisher-Yates).
    pub fn permutation(self, n: u32) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n).collect();
        for i in (1..n).rev() {
            let j = self.below(u64::from(i) + 1, i, 0);
            order.swap(i as usize, usize::try_from(j).expect("below i + 1"));
        }
        order
    }

    /// Ten rounds of Philox4x32 over one counter.
    fn block(self, counter: [u32; 4]) -> [u32; 4] {
        const MULTIPLIERS: [u64; 2] = [0xD251_1F53, 0xCD9E_8D57];
        const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
        let mut key = [low_word(self.0), high_word(self.0)];
        let mut x = counter;
        for _ in 0..10 {
            let a = MULTIPLIERS[0] * u64::from(x[0]);
            let b = MULTIPLIERS[1] * u64::from(x[2]);
            x = [
                high_word(b) ^ x[1] ^ key[0],
                low_word(b),
                high_word(a) ^ x[3] ^ key[1],
                low_word(a),
            ];
            key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
        }
        x
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is what is asked for")]
fn low_word(value: u64) -> u32 {
    value as u32
}

fn high_word(value: u64) -> u32 {
    low_word(value >> 32)
}

fn join(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers published with Random123.
    #[test]
    fn philox_gives_the_published_answers() {
        let answer = |key, counter| Seed(key).block(counter);
        assert_eq!(answer(0, [0; 4]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            answer(u64::MAX, [u32::MAX; 4]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            answer(0x299f_31d0_a409_3822, [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn draws_are_uniform_and_children_are_apart() {
        let seed = Seed::new(1).child(Purpose::Token, 3);
        let mean = (0..10_000).map(|i| seed.uniform(i, 0)).sum::<f64>() / 10_000.0;
        assert!((mean - 0.5).abs() < 4.0 / (12.0f64 * 10_000.0).sqrt(), "mean {mean}");
        assert_ne!(seed, Seed::new(1).child(Purpose::Position, 3));
        assert_ne!(seed, Seed::new(1).child(Purpose::Token, 4));
    }

    #[test]
    fn a_permutation_holds_every_index_once() {
        let mut order = Seed::new(5).permutation(100);
        assert_ne!(order, (0..100).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }
}
