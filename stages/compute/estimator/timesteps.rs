//! The steps of the trajectories that a Monte Carlo gradient evaluates, and their weights.
//!
//! Row i's loss is a mean over steps, `(1/N_i) sum over t < n_i of L_i(t)`. Draws make it
//! `sum over draws of w L_i(t)` with the same expectation, or the same value where k is "all".
//!
//! * steps: `n_i = N_i` = the effective horizon; or n_i = the steps sampled and N_i = the sampler's
//!   number of steps, which is a constant ([`Horizon`]). Both count the row's own steps, each with all the
//!   tokens that it wrote: with a threshold, n_i differs from row to row, and the constant is the completion's
//!   number of tokens, the maximum of steps.
//! * probabilities: `q_i(t) = 1/n_i`, or in proportion to `1e-8 + sum of the entropies of the tokens
//!   that t wrote`, mixed with a uniform share; `w = 1 / (k N_i q_i(t))`.
//! * low-discrepancy sampling (Sahoo et al., arXiv 2409.02908, appendix G.2): with N samples, a random
//!   permutation pi of 0..N and U uniform, `u(n) = (pi(n) + U(n)) / N`. Each u alone is uniform, so
//!   every estimate stays unbiased; together they cover [0, 1) evenly. t is the step whose interval
//!   of the cumulative distribution holds u.

use agrpo_spec::{EstimatorConfig, Horizon, Purpose, Samples, Seed, StepWeights, Strata};

use super::batch::Batch;

/// One drawn step of a trajectory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// The trajectory.
    pub row: usize,
    /// The step, below the row's number of steps.
    pub step: u32,
    /// The factor of the step's loss.
    pub weight: f64,
}

/// The steps of one row, and how likely each is to be drawn.
#[derive(Clone, Debug)]
pub struct Steps {
    /// q by step; sums to 1. Empty where a row has no steps, as in a completion of nothing but end-of-sequence.
    pub probabilities: Vec<f64>,
    /// N, the divisor of the sum over steps.
    divisor: f64,
}

impl Steps {
    /// A row's steps under a configuration.
    pub fn of(batch: &Batch<'_>, row: usize, config: &EstimatorConfig) -> Self {
        let (steps, divisor) = match config.horizon {
            Horizon::Effective => (batch.horizon(row), batch.horizon(row)),
            Horizon::Sampled => (batch.trajectories.sampled_steps(row), batch.sampler.steps),
        };
        let uniform = 1.0 / f64::from(steps.max(1));
        let probabilities = match config.step_weights {
            StepWeights::Uniform => vec![uniform; steps as usize],
            StepWeights::Entropy => {
                let trajectories = batch.trajectories;
                let first = row * trajectories.completion_len;
                let entropy = |position| f64::from(trajectories.token_entropies[first + position]);
                let of_step = |t| 1e-8 + batch.written(row, t).map(entropy).sum::<f64>().max(0.0);
                let sums: Vec<f64> = (0..steps).map(of_step).collect();
                let total: f64 = sums.iter().sum();
                let share = config.uniform_share.get();
                sums.iter().map(|e| (1.0 - share) * e / total + share * uniform).collect()
            }
        };
        Self { probabilities, divisor: f64::from(divisor) }
    }

    /// The weight 1 / (k N q(t)) of a draw, one of k.
    pub fn weight(&self, step: u32, k: u32) -> f64 {
        1.0 / (f64::from(k) * self.divisor * self.probabilities[step as usize])
    }

    /// The step whose interval of the cumulative distribution holds `u`.
    fn at(&self, u: f64) -> u32 {
        let mut cumulative = 0.0;
        let inside = self.probabilities.iter().position(|q| {
            cumulative += q;
            u < cumulative
        });
        // Rounding can leave the sum just below u, which then belongs to the last step.
        u32::try_from(inside.unwrap_or(self.probabilities.len() - 1)).expect("steps are few")
    }
}

/// Draws for `rows`, or every step of each once. Rows without steps get none.
pub fn draw(batch: &Batch<'_>, rows: &[usize], config: &EstimatorConfig, seed: Seed) -> Vec<Draw> {
    let of_row = |&row: &usize| (row, Steps::of(batch, row, config));
    let all: Vec<_> =
        rows.iter().map(of_row).filter(|(_, steps)| !steps.probabilities.is_empty()).collect();
    let Samples::Count(k) = config.k else {
        let every = |(row, steps): &(usize, Steps)| {
            let (row, weight) = (*row, 1.0 / steps.divisor);
            let last = u32::try_from(steps.probabilities.len()).expect("steps are few");
            (0..last).map(move |step| Draw { row, step, weight })
        };
        return all.iter().flat_map(every).collect();
    };
    let n = u32::try_from(all.len()).expect("a shard is small") * k;
    let strata = match config.strata {
        Strata::Shard => seed.child(Purpose::Permutation, 0).permutation(n),
        Strata::None | Strata::Completion => vec![],
    };
    let mut draws = Vec::with_capacity(n as usize);
    for (index, (row, steps)) in (0u32..).zip(&all) {
        for sample in 0..k {
            let jitter = seed.child(Purpose::Timestep, 0).uniform(index, sample);
            let u = match config.strata {
                Strata::None => jitter,
                Strata::Completion => (f64::from(sample) + jitter) / f64::from(k),
                Strata::Shard => {
                    let stratum = strata[(index * k + sample) as usize];
                    (f64::from(stratum) + jitter) / f64::from(n)
                }
            };
            let step = steps.at(u);
            draws.push(Draw { row: *row, step, weight: steps.weight(step, k) });
        }
    }
    draws
}
