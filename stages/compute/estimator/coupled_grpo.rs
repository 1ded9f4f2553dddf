//! coupled-GRPO (DiffuCoder, arXiv 2506.20639): pairs of complementary masks, so that every token is
//! read once from a state that shows some of the others.
//!
//! With a ratio r ~ U(0.2, 0.8), a random subset M of the completion (each token with probability r),
//! its complement, and the fully masked completion,
//! ```text
//! l_j   = 1/2 [ log p(y_j | all masked) + 1/r     log p(y_j | M masked)          ]   for j in M
//! l_j   = 1/2 [ log p(y_j | all masked) + 1/(1-r) log p(y_j | complement masked) ]   otherwise
//! rho_j = exp(l_j - l_j of the policy that sampled)
//! ```
//! then clip, divergence and mean over tokens as in diffu-GRPO; untempered. Three passes a pair; k
//! counts pairs, published is 1. A ratio of sums of scaled logarithms is no likelihood ratio of the
//! trajectory: biased.

use agrpo_spec::{EstimatorConfig, Purpose, Seed};

use super::batch::Batch;
use super::diffu_grpo::{count_of, token_factor, token_read};
use super::timesteps::{token_mean, tokens};
use super::unit::{Estimator, Surrogate, Unit};

/// The estimator on one batch.
#[derive(Debug)]
pub(super) struct CoupledGrpo<'a> {
    batch: &'a Batch<'a>,
    rows: Vec<usize>,
    seed: Seed,
    k: usize,
    weight: f64,
    surrogate: Surrogate,
}

impl<'a> CoupledGrpo<'a> {
    pub(super) fn new(batch: &'a Batch<'a>, config: &EstimatorConfig, seed: Seed) -> Self {
        let k = count_of(config.k);
        Self {
            batch,
            rows: batch.moving(config.kl.get() > 0.0),
            seed,
            k: k as usize,
            weight: token_mean(batch, k),
            surrogate: Surrogate::untempered(config),
        }
    }

    /// The pair's ratio, shared by the batch.
    fn ratio(&self, pair: usize) -> f64 {
        0.2 + 0.6 * self.seed.child(Purpose::Timestep, pair as u64).uniform(0, 0)
    }
}

impl Estimator for CoupledGrpo<'_> {
    fn units(&self) -> usize {
        self.rows.len() * self.k
    }

    fn unit(&self, n: usize) -> Unit {
        let (row, pair) = (self.rows[n / self.k], n % self.k);
        let (batch, ratio) = (self.batch, self.ratio(pair));
        let seed = self.seed.child(Purpose::Position, pair as u64);
        let row_index = u32::try_from(row).expect("a shard is small");
        let tokens = batch.trajectories().completion(row);
        let in_first: Vec<bool> = (0u32..)
            .zip(tokens)
            .map(|(position, _)| seed.uniform(row_index, position) < ratio)
            .collect();
        let state = |is_masked: &dyn Fn(usize) -> bool| {
            let shown = tokens.iter().enumerate();
            let shown = shown.map(|(j, &id)| if is_masked(j) { batch.mask() } else { id });
            batch.trajectories().prompt(row).iter().copied().chain(shown).collect()
        };
        let factors = (0..batch.content(row)).map(|position| {
            let (part, share) = if in_first[position] { (1, ratio) } else { (2, 1.0 - ratio) };
            let reads = vec![
                token_read(batch, row, position, 0, 0.5),
                token_read(batch, row, position, part, 0.5 / share),
            ];
            token_factor(batch, row, reads, self.weight)
        });
        Unit {
            factors: factors.collect(),
            states: vec![state(&|_| true), state(&|j| in_first[j]), state(&|j| !in_first[j])],
        }
    }

    fn surrogate(&self) -> Surrogate {
        self.surrogate
    }

    fn mean_over(&self) -> f64 {
        tokens(self.batch)
    }

    fn samples(&self) -> usize {
        3 * self.units()
    }
}
