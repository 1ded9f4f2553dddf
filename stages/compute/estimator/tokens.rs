//! What diffu-GRPO, coupled-GRPO and merged steps share: one ratio for each token up to and including its completion's
//! first end-of-sequence, whose losses are a mean over tokens, untempered, over the whole vocabulary.
//!
//! With |M_g| the counted tokens of a prompt's group g and G the counted groups (`estimator.token_mean`),
//! ```text
//! group      loss = 1/G sum over g of 1/|M_g| sum over M_g of l_j
//! iteration  loss = sum over M of l_j / |M|,   |M| = sum over g of |M_g|
//! ```
//! Source of the first: `compute_loss` of d1 (dllm-reasoning/d1, 837888f), DiffuCoder (apple/ml-diffucoder, f735e01) and
//! d2 (kuleshov-group/d2, 381b9f1), which take it over the rows of one device's micro-batch; the mean over micro-batches
//! is that of the optimizer's accumulation. Here a micro-batch is a group. Draws no mask.

use agrpo_spec::{EstimatorConfig, Samples, TokenMean};

use super::batch::{Batch, count};
use super::unit::{Event, Factor, Read, Support, Unit};
use crate::tensors::length;

/// What takes the place of this program's own, to compare with results of another; nothing by default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Given<'a> {
    /// log p_old of each token, R x C; otherwise computed from the policy that sampled.
    pub old: Option<&'a [f64]>,
    /// Whether the row of logits before a position is the one that predicts it.
    pub shifted_logits: bool,
}

/// The ratios of a batch's tokens, with their weights.
#[derive(Debug)]
pub(super) struct Tokens<'a> {
    batch: &'a Batch<'a>,
    given: Given<'a>,
    /// w of a token, by row; every mean included.
    weights: Vec<f64>,
    /// What the loss is a mean over: counted groups, or tokens.
    pub(super) mean_over: f64,
}

impl<'a> Tokens<'a> {
    /// Of each token there are k ratios.
    pub(super) fn new(
        batch: &'a Batch<'a>,
        config: &EstimatorConfig,
        k: u32,
        given: Given<'a>,
    ) -> Self {
        let tokens = |rows: &[usize]| count(rows.iter().map(|&row| batch.content(row)).sum());
        let groups: Vec<_> = batch.counted_by_group().filter(|rows| !rows.is_empty()).collect();
        let all: f64 = groups.iter().map(|rows| tokens(rows)).sum();
        let mut weights = vec![0.0; batch.rows()];
        for rows in &groups {
            let divisor = match config.token_mean {
                TokenMean::Group => tokens(rows) * count(groups.len()),
                TokenMean::Iteration => all,
            };
            rows.iter().for_each(|&row| weights[row] = 1.0 / (f64::from(k) * divisor));
        }
        let mean_over = match config.token_mean {
            TokenMean::Group => count(groups.len()),
            TokenMean::Iteration => all,
        };
        Self { batch, given, weights, mean_over }
    }

    /// A ratio for each of these tokens of a row, all read from one state.
    pub(super) fn one_read_each(
        &self,
        row: usize,
        positions: impl Iterator<Item = usize>,
        state: Vec<i64>,
    ) -> Unit {
        let factor = |at| self.factor(row, at, vec![self.read(row, at, 0, 1.0)]);
        Unit { factors: positions.map(factor).collect(), states: vec![state] }
    }

    /// The ratio of the token at a position of a completion.
    pub(super) fn factor(&self, row: usize, position: usize, reads: Vec<Read>) -> Factor {
        let cell = row * self.batch.trajectories.completion_len + position;
        Factor {
            reads,
            old: self.given.old.map(|old| old[cell]),
            advantage: self.batch.advantage(row),
            weight: self.weights[row],
            has_kl: true,
        }
    }

    /// The log-probability of that token in one of the unit's states.
    pub(super) fn read(&self, row: usize, position: usize, state: usize, coefficient: f64) -> Read {
        let trajectories = self.batch.trajectories;
        let predicts = trajectories.prompt_len + position;
        Read {
            state,
            position: length(predicts) - i64::from(self.given.shifted_logits),
            event: Event::Token(trajectories.completion(row)[position]),
            support: Support::Whole,
            coefficient,
        }
    }
}

/// k of a kind without an exact sum; the run file's checks refuse `"all"` for it.
pub(super) fn count_of(k: Samples) -> u32 {
    match k {
        Samples::Count(k) => k,
        Samples::All => 1,
    }
}
