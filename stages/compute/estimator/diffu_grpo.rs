//! diffu-GRPO (d1, arXiv 2504.12216): the likelihood of a completion, as if all of its tokens were
//! written in one step from a fully masked completion.
//!
//! With z = the prompt, each token masked with probability `prompt_mask`, then masks only, and M the
//! tokens up to and including the first end-of-sequence of each completion,
//! ```text
//! rho_j = p_theta(y_j | z) / p_old(y_j | z)
//! loss  = 1/|M| sum over M of [ -min(rho_j A, clip(rho_j, 1-lo, 1+hi) A) + beta k3_j ]
//! ```
//! untempered, over the whole vocabulary. Every inner update masks prompts anew, and p_old is computed
//! under the same mask from the policy that sampled. k counts masked prompts; published is 1, with
//! clip 0.5, beta 0.04 and 8 or 12 inner updates. Cheap, and biased: the state is one from which no
//! token but the first ones was drawn.

use agrpo_spec::{EstimatorConfig, Purpose, Samples, Seed};

use super::batch::Batch;
use super::timesteps::{token_mean, tokens};
use super::unit::{Estimator, Event, Factor, Read, Support, Surrogate, Unit};
use crate::{model::PADDING, tensors::length};

/// Which tokens of which prompts are masked.
#[derive(Clone, Copy, Debug)]
pub(super) struct PromptMasks {
    share: f64,
    seed: Seed,
}

impl PromptMasks {
    pub(super) fn new(config: &EstimatorConfig, seed: Seed) -> Self {
        Self { share: config.prompt_mask.get(), seed }
    }

    /// A row's prompt as masked for its n-th sample.
    pub(super) fn prompt(self, batch: &Batch<'_>, row: usize, n: usize) -> Vec<i64> {
        let seed = self.seed.child(Purpose::Prompt, n as u64);
        let row_index = u32::try_from(row).expect("a shard is small");
        let tokens = (0u32..).zip(batch.trajectories.prompt(row));
        let masked = |(position, &id)| {
            let is_masked = id != PADDING && seed.uniform(row_index, position) < self.share;
            if is_masked { batch.mask() } else { id }
        };
        tokens.map(masked).collect()
    }
}

pub(super) fn new<'a>(batch: &'a Batch<'a>, config: &EstimatorConfig, seed: Seed) -> Estimator<'a> {
    let rows = batch.moving(config.kl.get() > 0.0);
    let masks = PromptMasks::new(config, seed);
    let samples = count_of(config.k);
    let (k, weight) = (samples as usize, token_mean(batch, samples));
    Estimator {
        units: rows.len() * k,
        samples: rows.len() * k,
        unit: Box::new(move |n| {
            let row = rows[n / k];
            let mut state = masks.prompt(batch, row, n % k);
            state.resize(state.len() + batch.trajectories.completion_len, batch.mask());
            one_read_each(batch, row, 0..batch.content(row), state, weight)
        }),
        surrogate: Surrogate::untempered(config),
        mean_over: tokens(batch),
    }
}

/// A ratio for each of these tokens, all read from one state.
pub(super) fn one_read_each(
    batch: &Batch<'_>,
    row: usize,
    positions: impl Iterator<Item = usize>,
    state: Vec<i64>,
    weight: f64,
) -> Unit {
    let factor =
        |position| token_factor(batch, row, vec![token_read(batch, row, position, 0, 1.0)], weight);
    Unit { factors: positions.map(factor).collect(), states: vec![state] }
}

/// The ratio of one token, its denominator computed from the policy that sampled.
pub(super) fn token_factor(batch: &Batch<'_>, row: usize, reads: Vec<Read>, weight: f64) -> Factor {
    Factor { reads, old: None, advantage: batch.advantage(row), weight, has_kl: true }
}

/// The untempered log-probability of the token that stands at a position of a completion.
pub(super) fn token_read(
    batch: &Batch<'_>,
    row: usize,
    position: usize,
    state: usize,
    coefficient: f64,
) -> Read {
    let trajectories = batch.trajectories;
    Read {
        state,
        position: length(trajectories.prompt_len + position),
        event: Event::Token(trajectories.completion(row)[position]),
        support: Support::Whole,
        coefficient,
    }
}

/// k of a kind without an exact sum; the run file's checks refuse `"all"` for it.
pub(super) fn count_of(k: Samples) -> u32 {
    match k {
        Samples::Count(k) => k,
        Samples::All => 1,
    }
}
