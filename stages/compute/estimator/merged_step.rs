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

use agrpo_spec::{EstimatorConfig, Seed};

use super::batch::Batch;
use super::diffu_grpo::{PromptMasks, count_of, token_factor, token_read};
use super::timesteps::{token_mean, tokens};
use super::unit::{Estimator, Surrogate, Unit};

/// The estimator on one batch.
#[derive(Debug)]
pub(super) struct MergedStep<'a> {
    batch: &'a Batch<'a>,
    /// Row, segment; segments without a token to train on are left out.
    segments: Vec<(usize, u32)>,
    k: u32,
    masks: PromptMasks,
    weight: f64,
    surrogate: Surrogate,
}

impl<'a> MergedStep<'a> {
    pub(super) fn new(batch: &'a Batch<'a>, config: &EstimatorConfig, seed: Seed) -> Self {
        let k = count_of(config.k).min(batch.sampler().steps);
        let mut merged = Self {
            batch,
            segments: vec![],
            k,
            masks: PromptMasks::new(config, seed),
            weight: token_mean(batch, 1),
            surrogate: Surrogate::untempered(config),
        };
        for row in batch.moving(config.kl.get() > 0.0) {
            let used = (0..k).filter(|&n| merged.tokens(row, n).next().is_some());
            let used: Vec<_> = used.map(|segment| (row, segment)).collect();
            merged.segments.extend(used);
        }
        merged
    }

    /// First step of a segment; of segment k, the number of steps.
    fn first_step(&self, segment: u32) -> u32 {
        let steps = u64::from(self.batch.sampler().steps);
        let first = (u64::from(segment) * steps).div_ceil(u64::from(self.k));
        u32::try_from(first).expect("no more than the steps")
    }

    /// Positions that a segment wrote, up to the first end-of-sequence.
    fn tokens(&self, row: usize, segment: u32) -> impl Iterator<Item = usize> {
        let steps = self.first_step(segment)..self.first_step(segment + 1);
        let content = self.batch.content(row);
        let all = self.batch.trajectories().steps(row)[..content].iter().enumerate();
        let inside = move |step: &i64| u32::try_from(*step).is_ok_and(|step| steps.contains(&step));
        all.filter(move |(_, step)| inside(step)).map(|(position, _)| position)
    }
}

impl Estimator for MergedStep<'_> {
    fn units(&self) -> usize {
        self.segments.len()
    }

    fn unit(&self, n: usize) -> Unit {
        let (row, segment) = self.segments[n];
        let batch = self.batch;
        let p = batch.trajectories().prompt_len;
        let first = i64::from(self.first_step(segment));
        let mut state = batch.trajectories().state(row, first, batch.mask());
        // All segments of a completion see the same masked prompt.
        state[..p].copy_from_slice(&self.masks.prompt(batch, row, 0));
        let read = |position| vec![token_read(batch, row, position, 0, 1.0)];
        let factors = self
            .tokens(row, segment)
            .map(|position| token_factor(batch, row, read(position), self.weight));
        Unit { factors: factors.collect(), states: vec![state] }
    }

    fn surrogate(&self) -> Surrogate {
        self.surrogate
    }

    fn mean_over(&self) -> f64 {
        tokens(self.batch)
    }

    fn samples(&self) -> usize {
        self.units()
    }
}
