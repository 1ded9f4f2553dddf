//! diffu-GRPO (d1, arXiv 2504.12216): the likelihood of a completion, as if all of its tokens were
//! written in one step from a fully masked completion.
//!
//! With z = the prompt, each token masked with probability `prompt_mask`, then masks only, and M the
//! tokens up to and including the first end-of-sequence of each completion of a prompt,
//! ```text
//! rho_j = p_theta(y_j | z) / p_old(y_j | z),   k3_j = p_ref/p_theta - log(p_ref/p_theta) - 1
//! loss  = 1/|M| sum over M of [ -min(rho_j A, clip(rho_j, 1-lo, 1+hi) A) + beta k3_j ]
//! ```
//! and the mean over prompts (`tokens.rs`); untempered, over the whole vocabulary. Every inner update masks prompts
//! anew, and p_old is computed under the same mask from the policy that sampled. k counts masked prompts; published is 1,
//! with clip 0.5, beta 0.04 and 8 or 12 inner updates. Source: `DiffuGRPOTrainer` (dllm-reasoning/d1, 837888f), whose
//! results `tests/golden/rivals` holds. It differs in that left padding is attended to there, and may be masked like a
//! prompt's tokens; here no position attends to padding. Cheap, and biased: the state is one from which no token but the
//! first ones was drawn.

use agrpo_spec::{EstimatorConfig, Purpose, Seed};

use super::batch::Batch;
use super::tokens::{Given, Tokens, count_of};
use super::unit::{Estimator, Surrogate};
use crate::model::PADDING;

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
    let masks = PromptMasks::new(config, seed);
    with_prompts(batch, config, Given::default(), move |row, n| masks.prompt(batch, row, n))
}

/// The estimator for given masked prompts, by row and sample.
pub fn with_prompts<'a>(
    batch: &'a Batch<'a>,
    config: &EstimatorConfig,
    given: Given<'a>,
    prompt: impl Fn(usize, usize) -> Vec<i64> + Sync + 'a,
) -> Estimator<'a> {
    let rows = batch.moving(config.kl.get() > 0.0);
    let samples = count_of(config.k);
    let (k, tokens) = (samples as usize, Tokens::new(batch, config, samples, given));
    Estimator {
        units: rows.len() * k,
        samples: rows.len() * k,
        mean_over: tokens.mean_over,
        unit: Box::new(move |n| {
            let row = rows[n / k];
            let mut state = prompt(row, n % k);
            state.resize(state.len() + batch.trajectories.completion_len, batch.mask());
            tokens.one_read_each(row, 0..batch.content(row), state)
        }),
        surrogate: Surrogate::untempered(config),
    }
}
