//! Selects the problems that d1 evaluates on, in their order: NumPy's legacy `choice` without replacement.
//!
//! A Mersenne Twister (Matsumoto and Nishimura 1998, MT19937) shuffles the indices, and the first 256 are
//! taken. Nothing else in this project draws from it; HF datasets' `shuffle`, which is a PCG64, is not here.

/// Indices into a test set of `length` problems, in the order of d1's evaluation of Countdown and Sudoku:
/// the first 256 of a shuffle. GSM8K and MATH-500 are taken whole, in the order of the file.
pub fn d1_evaluation_order(length: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..length).collect();
    let mut twister = Twister::new(42);
    for last in (1..length).rev() {
        order.swap(last, twister.below_or_at(last));
    }
    order.truncate(256);
    order
}

const WORDS: usize = 624;

struct Twister {
    state: Vec<u32>,
    next: usize,
}

impl Twister {
    fn new(seed: u32) -> Self {
        let mut state = vec![seed];
        for index in 1u32.. {
            let Some(&last) = state.last().filter(|_| state.len() < WORDS) else { break };
            state.push((last ^ (last >> 30)).wrapping_mul(1_812_433_253).wrapping_add(index));
        }
        Self { state, next: WORDS }
    }

    fn word(&mut self) -> u32 {
        if self.next == WORDS {
            for i in 0..WORDS {
                let joined =
                    (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % WORDS] & 0x7fff_ffff);
                let twist = if joined & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[i] = self.state[(i + 397) % WORDS] ^ (joined >> 1) ^ twist;
            }
            self.next = 0;
        }
        let mut word = self.state[self.next];
        self.next += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    /// Uniform in `0..=limit`, by rejection under the smallest mask of ones.
    fn below_or_at(&mut self, limit: usize) -> usize {
        let mask = limit.checked_ilog2().map_or(0, |bits| (2usize << bits) - 1);
        loop {
            let drawn = self.word() as usize & mask;
            if drawn <= limit {
                return drawn;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn the_subset_of_the_sudoku_test_set() {
        let order = d1_evaluation_order(500);
        assert_eq!(order[..10], [361, 73, 374, 155, 104, 394, 377, 124, 68, 450]);
        assert_eq!(order[253..], [198, 297, 416]);
        let joined = order.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        assert_eq!(
            hex::encode(Sha256::digest(joined)),
            "b9447da94bef027b303139272f8afedcba0cf935f1ff8d15854ae5196194a9b7"
        );
    }

    #[test]
    fn the_order_of_the_countdown_test_set() {
        let order = d1_evaluation_order(256);
        assert_eq!(order[..10], [228, 6, 79, 206, 117, 185, 242, 167, 9, 30]);
        let mut sorted = order;
        sorted.sort_unstable();
        assert_eq!(sorted, (0..256).collect::<Vec<_>>());
        assert_eq!(d1_evaluation_order(0), Vec::<usize>::new());
        assert_eq!(d1_evaluation_order(1), [0]);
    }
}
