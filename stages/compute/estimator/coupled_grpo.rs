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

pub(super) fn new<'a>(batch: &'a Batch<'a>, config: &EstimatorConfig, seed: Seed) -> Estimator<'a> {
    let rows = batch.moving(config.kl.get() > 0.0);
    let pairs = count_of(config.k);
    let (k, weight) = (pairs as usize, token_mean(batch, pairs));
    Estimator {
        units: rows.len() * k,
        samples: 3 * rows.len() * k,
        unit: Box::new(move |n| unit(batch, rows[n / k], n % k, seed, weight)),
        surrogate: Surrogate::untempered(config),
        mean_over: tokens(batch),
    }
}

fn unit(batch: &Batch<'_>, row: usize, pair: usize, seed: Seed, weight: f64) -> Unit {
    // One ratio for the whole batch.
    let ratio = 0.2 + 0.6 * seed.child(Purpose::Timestep, pair as u64).uniform(0, 0);
    let seed = seed.child(Purpose::Position, pair as u64);
    let row_index = u32::try_from(row).expect("a shard is small");
    let tokens = batch.trajectories.completion(row);
    let in_first: Vec<bool> = (0u32..)
        .zip(tokens)
        .map(|(position, _)| seed.uniform(row_index, position) < ratio)
        .collect();
    let state = |is_masked: &dyn Fn(usize) -> bool| {
        let shown = tokens.iter().enumerate();
        let shown = shown.map(|(j, &id)| if is_masked(j) { batch.mask() } else { id });
        batch.trajectories.prompt(row).iter().copied().chain(shown).collect()
    };
    let factors = (0..batch.content(row)).map(|position| {
        let (part, share) = if in_first[position] { (1, ratio) } else { (2, 1.0 - ratio) };
        let reads = vec![
            token_read(batch, row, position, 0, 0.5),
            token_read(batch, row, position, part, 0.5 / share),
        ];
        token_factor(batch, row, reads, weight)
    });
    Unit {
        factors: factors.collect(),
        states: vec![state(&|_| true), state(&|j| in_first[j]), state(&|j| !in_first[j])],
    }
}
