//! Merged steps (d2-StepMerge, arXiv 2509.21474): the trajectory's T steps in k equal segments, every token read from
//! the state at the start of its segment.
//!
//! Segment n starts at step floor(n (T / k)), in f64. With z_n = the state before that step, its prompt masked with probability
//! `prompt_mask`, and M the tokens up to and including the first end-of-sequence of each completion of a prompt,
//! ```text
//! rho_j = p_theta(x_j | z_n(j)) / p_old(x_j | z_n(j)),   k3_j = p_ref/p_theta - log(p_ref/p_theta) - 1
//! loss  = 1/|M| sum over M of [ -min(rho_j A, clip(rho_j, 1-lo, 1+hi) A) + beta k3_j ]
//! ```
//! and the mean over prompts (`tokens.rs`); untempered, over the whole vocabulary; p_old is computed under the same masks
//! from the policy that sampled. Source: `d2StepMergeTrainer` (kuleshov-group/d2, 381b9f1), whose results
//! `tests/golden/rivals` holds. There a segment is a micro-step whose loss is k times its share of this sum, and the mean
//! over the k micro-steps is this loss. It attends to left padding and may mask it, as d1 does.
//!
//! k = T without masked prompts is AGRPO's exact sum but for its means, at temperature 1, where
//! no completion ends early and the mask has no probability: the sampler never draws the mask, these
//! distributions hold it. Fewer segments show tokens less than the sampler saw: biased. Where steps that write nothing are
//! passed over (`blocks.rs`), T is the number of the others.

use std::ops::Range;

use agrpo_spec::{EstimatorConfig, Seed, TokenMean};

use super::batch::Batch;
use super::diffu_grpo::PromptMasks;
use super::tokens::{Given, Tokens, count_of};
use super::unit::{Estimator, Surrogate};

pub(super) fn new<'a>(batch: &'a Batch<'a>, config: &EstimatorConfig, seed: Seed) -> Estimator<'a> {
    let masks = PromptMasks::new(config, seed);
    // All segments of a completion see the same masked prompt.
    let prompt = move |row| masks.prompt(batch, row, 0);
    with_segments(batch, config, Given::default(), 0..segments(batch, config), prompt)
}

/// The number of segments, k.
fn segments(batch: &Batch<'_>, config: &EstimatorConfig) -> u32 {
    count_of(config.k).min(batch.steps())
}

/// The estimator's share from these segments, for given masked prompts, by row.
pub fn with_segments<'a>(
    batch: &'a Batch<'a>,
    config: &EstimatorConfig,
    given: Given<'a>,
    numbers: Range<u32>,
    prompt: impl Fn(usize) -> Vec<i64> + Sync + 'a,
) -> Estimator<'a> {
    let of_row = |row| numbers.clone().map(move |n| (row, Segment::new(batch, config, n)));
    // Segments without a token to train on are left out.
    let all = batch.moving(config.kl.get() > 0.0).into_iter().flat_map(of_row);
    let used: Vec<_> =
        all.filter(|(row, segment)| segment.tokens(batch, *row).next().is_some()).collect();
    let tokens = Tokens::new(batch, config, 1, given);
    Estimator {
        units: used.len(),
        samples: used.len(),
        mean_over: tokens.mean_over,
        unit: Box::new(move |n| {
            let (row, ref segment) = used[n];
            let (trajectories, first) = (batch.trajectories, segment.0.start);
            let mut state = trajectories.state(row, first.into(), batch.mask());
            state[..trajectories.prompt_len].copy_from_slice(&prompt(row));
            tokens.one_read_each(row, segment.tokens(batch, row), state)
        }),
        surrogate: Surrogate::untempered(config),
    }
}

/// Where the n-th of k segments starts: `int(n * (T / k))` of the published code. The product is rounded, so that of T =
/// 30, k = 22 the segment 11 starts at 14.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most the steps")]
fn first_step(n: u32, k: u32, steps: u32) -> u32 {
    // The last segment ends with the trajectory.
    if n == k { steps } else { (f64::from(n) * (f64::from(steps) / f64::from(k))) as u32 }
}

struct Segment(Range<u32>);

impl Segment {
    /// The n-th.
    fn new(batch: &Batch<'_>, config: &EstimatorConfig, n: u32) -> Self {
        let (steps, k) = (batch.steps(), segments(batch, config));
        let first = |n| match config.token_mean {
            TokenMean::Group => first_step(n, k, steps),
            // What runs computed before there was a choice: their results keep their names.
            TokenMean::Iteration => {
                let first = (u64::from(n) * u64::from(steps)).div_ceil(u64::from(k));
                u32::try_from(first).expect("no more than the steps")
            }
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

#[cfg(test)]
mod tests {
    use super::first_step;

    #[test]
    fn segments_start_where_the_published_code_starts_them() {
        let starts = |k, steps| (0..=k).map(|n| first_step(n, k, steps)).collect::<Vec<_>>();
        assert_eq!(starts(4, 18), [0, 4, 9, 13, 18]);
        assert_eq!(starts(3, 3), [0, 1, 2, 3]);
        // Python: int(11 * (30 / 22)).
        assert_eq!(first_step(11, 22, 30), 14);
        for steps in 1..=128 {
            for k in 1..=steps {
                let starts = starts(k, steps);
                assert_eq!(starts.last(), Some(&steps));
                assert!(starts.is_sorted_by(|a, b| a < b), "{k} segments of {steps}: {starts:?}");
            }
        }
    }
}
