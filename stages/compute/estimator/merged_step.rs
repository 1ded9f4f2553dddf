//! Merged steps (d2-StepMerge, arXiv 2509.21474; TraceRL's shrink, arXiv 2509.06949): the trajectory's
//! T steps in k equal segments, every token read from the state at the start of its segment.
//!
//! With z_n = the state before the first step of segment n, its prompt masked with probability
//! `prompt_mask`, and M the tokens up to and including the first end-of-sequence,
//! ```text
//! rho_j = p_theta(x_j | z_n(j)) / p_old(x_j | z_n(j))
//! loss  = 1/|M| sum over M of [ -min(rho_j A, clip(rho_j, 1-lo, 1+hi) A) + beta k3_j ]
//! ```
//! untempered, over the whole vocabulary; p_old is computed under the same masks from the policy that
//! sampled. k = T without masked prompts is AGRPO's exact sum but for its means, at temperature 1, where
//! no completion ends early and the mask has no probability: the sampler never draws the mask, these
//! distributions hold it. Fewer segments show tokens less than the sampler saw: biased.

use std::ops::Range;

use agrpo_spec::{EstimatorConfig, Seed};

use super::batch::Batch;
use super::diffu_grpo::{PromptMasks, count_of, one_read_each};
use super::timesteps::{token_mean, tokens};
use super::unit::{Estimator, Surrogate};

pub(super) fn new<'a>(batch: &'a Batch<'a>, config: &EstimatorConfig, seed: Seed) -> Estimator<'a> {
    let k = count_of(config.k).min(batch.sampler.steps);
    // Segments without a token to train on are left out.
    let of_row = |row| (0..k).map(move |n| (row, Segment::new(batch, n, k)));
    let all = batch.moving(config.kl.get() > 0.0).into_iter().flat_map(of_row);
    let used: Vec<_> =
        all.filter(|(row, segment)| segment.tokens(batch, *row).next().is_some()).collect();
    let masks = PromptMasks::new(config, seed);
    let weight = token_mean(batch, 1);
    Estimator {
        units: used.len(),
        samples: used.len(),
        unit: Box::new(move |n| {
            let (row, ref segment) = used[n];
            let (trajectories, first) = (batch.trajectories, segment.0.start);
            let mut state = trajectories.state(row, first.into(), batch.mask());
            // All segments of a completion see the same masked prompt.
            state[..trajectories.prompt_len].copy_from_slice(&masks.prompt(batch, row, 0));
            one_read_each(batch, row, segment.tokens(batch, row), state, weight)
        }),
        surrogate: Surrogate::untempered(config),
        mean_over: tokens(batch),
    }
}

struct Segment(Range<u32>);

impl Segment {
    /// The n-th of k.
    fn new(batch: &Batch<'_>, n: u32, k: u32) -> Self {
        let steps = u64::from(batch.sampler.steps);
        let first = |n: u32| {
            let first = (u64::from(n) * steps).div_ceil(u64::from(k));
            u32::try_from(first).expect("no more than the steps")
        };
        Self(first(n)..first(n + 1))
    }

    /// Positions that its steps wrote, up to the first end-of-sequence.
    fn tokens(&self, batch: &Batch<'_>, row: usize) -> impl Iterator<Item = usize> {
        let content = batch.content(row);
        let all = batch.trajectories.steps(row)[..content].iter().enumerate();
        let inside = |step: &i64| u32::try_from(*step).is_ok_and(|step| self.0.contains(&step));
        all.filter(move |(_, step)| inside(step)).map(|(position, _)| position)
    }
}
