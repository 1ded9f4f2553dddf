//! coupled-GRPO (DiffuCoder, arXiv 2506.20639): pairs of complementary masks, so that every token is
//! read once from a state that shows some of the others.
//!
//! With a ratio r ~ U(0.2, 0.8), a random subset M of the completion (each token with probability r),
//! its complement, and the fully masked completion,
//! ```text
//! l_j   = 1/2 [ log p(y_j | all masked) + 1/r     log p(y_j | M masked)          ]   for j in M
//! l_j   = 1/2 [ log p(y_j | all masked) + 1/(1-r) log p(y_j | complement masked) ]   otherwise
//! rho_j = exp(l_j - l_j of the policy that sampled),   k3_j of l_j as well
//! ```
//! then clip, divergence and mean over tokens as in diffu-GRPO; untempered, prompts never masked. Three passes a pair;
//! k counts pairs, published is 1. Source: `coupled_grpo.py` (apple/ml-diffucoder, f735e01), whose results
//! `tests/golden/rivals` holds; it is written for models whose logits are shifted by one position, and attends to left
//! padding. A ratio of sums of scaled logarithms is no likelihood ratio of the trajectory: biased.

use agrpo_spec::{EstimatorConfig, Purpose, Seed};

use super::batch::Batch;
use super::tokens::{Given, Tokens, count_of};
use super::unit::{Estimator, Surrogate, Unit};

/// How a completion is divided between two complementary masks.
#[derive(Clone, Debug, PartialEq)]
pub struct Halves {
    /// r, the chance of a token to be masked in the first.
    pub ratio: f64,
    /// Whether the first masks a token, C; the second masks the others.
    pub in_first: Vec<bool>,
}

impl Halves {
    fn draw(batch: &Batch<'_>, row: usize, pair: usize, seed: Seed) -> Self {
        // One ratio for the whole batch.
        let ratio = 0.2 + 0.6 * seed.child(Purpose::Timestep, pair as u64).uniform(0, 0);
        let seed = seed.child(Purpose::Position, pair as u64);
        let row = u32::try_from(row).expect("a shard is small");
        let positions = (0u32..).take(batch.trajectories.completion_len);
        let in_first = positions.map(|position| seed.uniform(row, position) < ratio).collect();
        Self { ratio, in_first }
    }
}

pub(super) fn new<'a>(batch: &'a Batch<'a>, config: &EstimatorConfig, seed: Seed) -> Estimator<'a> {
    let halves = move |row, pair| Halves::draw(batch, row, pair, seed);
    with_halves(batch, config, Given::default(), halves)
}

/// The estimator for given halves, by row and pair.
pub fn with_halves<'a>(
    batch: &'a Batch<'a>,
    config: &EstimatorConfig,
    given: Given<'a>,
    halves: impl Fn(usize, usize) -> Halves + Sync + 'a,
) -> Estimator<'a> {
    let rows = batch.moving(config.kl.get() > 0.0);
    let pairs = count_of(config.k);
    let (k, tokens) = (pairs as usize, Tokens::new(batch, config, pairs, given));
    Estimator {
        units: rows.len() * k,
        samples: 3 * rows.len() * k,
        mean_over: tokens.mean_over,
        unit: Box::new(move |n| unit(batch, &tokens, rows[n / k], &halves(rows[n / k], n % k))),
        surrogate: Surrogate::untempered(config),
    }
}

fn unit(batch: &Batch<'_>, tokens: &Tokens<'_>, row: usize, halves: &Halves) -> Unit {
    let Halves { ratio, in_first } = halves;
    let state = |is_masked: &dyn Fn(usize) -> bool| {
        let shown = batch.trajectories.completion(row).iter().enumerate();
        let shown = shown.map(|(j, &id)| if is_masked(j) { batch.mask() } else { id });
        batch.trajectories.prompt(row).iter().copied().chain(shown).collect()
    };
    let factors = (0..batch.content(row)).map(|position| {
        let (part, share) = if in_first[position] { (1, *ratio) } else { (2, 1.0 - ratio) };
        let reads =
            vec![tokens.read(row, position, 0, 0.5), tokens.read(row, position, part, 0.5 / share)];
        tokens.factor(row, position, reads)
    });
    Unit {
        factors: factors.collect(),
        states: vec![state(&|_| true), state(&|j| in_first[j]), state(&|j| !in_first[j])],
    }
}
