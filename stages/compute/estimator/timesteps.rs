//! The steps of the trajectories that a Monte Carlo gradient evaluates, and their weights.
//!
//! Row i's loss is a mean over steps, `(1/N_i) sum over t < n_i of L_i(t)`. Draws make it
//! `sum over draws of w L_i(t)` with the same expectation, or the same value where k is "all".
//!
//! * steps: `n_i = N_i` = the effective horizon; or n_i = the steps sampled and N_i = the sampler's
//!   number of steps, which is a constant ([`Horizon`]). Both count the row's own steps, each with all the
//!   tokens that it wrote: with a threshold, n_i differs from row to row, and the constant is the completion's
//!   number of tokens, the maximum of steps. With blocks counted from the prompt, rows may take more or fewer steps than the
//!   constant, which is no less constant.
//! * probabilities: `q_i(t) = 1/n_i`, or in proportion to `1e-8 + sum of the entropies of the tokens
//!   that t wrote`, mixed with a uniform share; `w = 1 / (k N_i q_i(t))`.
//! * low-discrepancy sampling (Sahoo et al., arXiv 2409.02908, appendix G.2): with N samples, a random
//!   permutation pi of 0..N and U uniform, `u(n) = (pi(n) + U(n)) / N`. Each u alone is uniform, so
//!   every estimate stays unbiased; together they cover [0, 1) evenly. t is the step whose interval
//!   of the cumulative distribution holds u.
//! * [`Strata`]: N = G k in the published program (probablyabot/agrpo, commit 98f1182), whose micro-batch is one prompt's
//!   group of G completions. A group draws for all of its completions, also for those that have no term, from a seed that
//!   its number in the iteration names; so draws depend neither on rewards nor on the division into shards.

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
    let drawn: Vec<usize> = all.iter().map(|(row, _)| *row).collect();
    let uniforms = uniforms(batch, &drawn, config.strata, k, seed);
    let of_row = |((row, steps), uniforms): (&(usize, Steps), &[f64])| {
        let of = |&u: &f64| {
            let step = steps.at(u);
            Draw { row: *row, step, weight: steps.weight(step, k) }
        };
        uniforms.iter().map(of).collect::<Vec<_>>()
    };
    all.iter().zip(uniforms.chunks(k as usize)).flat_map(of_row).collect()
}

/// The numbers that decide the steps of these rows, k of each row.
fn uniforms(batch: &Batch<'_>, rows: &[usize], strata: Strata, k: u32, seed: Seed) -> Vec<f64> {
    let count = u32::try_from(rows.len()).expect("a shard is small");
    let all = || (0..count).flat_map(|index| (0..k).map(move |sample| (index, sample)));
    match strata {
        Strata::None => all().map(|(index, sample)| jitter(seed, index, sample)).collect(),
        Strata::Completion => {
            let of = |(index, sample)| f64::from(sample) + jitter(seed, index, sample);
            all().map(|at| of(at) / f64::from(k)).collect()
        }
        Strata::Shard => spread(seed, count, k),
        Strata::Group => {
            let groups = rows.chunk_by(|&a, &b| batch.group(a) == batch.group(b));
            let of_group = |rows: &[usize]| {
                let (number, group) = batch.group(rows[0]);
                let size = u32::try_from(group.len()).expect("a shard is small");
                let all = spread(seed.child(Purpose::Prompt, number), size, k);
                let place = |row: &usize| (row - group.start) * k as usize;
                let of_row = |row| all[place(row)..][..k as usize].to_vec();
                rows.iter().flat_map(of_row).collect::<Vec<_>>()
            };
            groups.flat_map(of_group).collect()
        }
    }
}

/// Low-discrepancy numbers for k samples of so many rows, row by row.
fn spread(seed: Seed, rows: u32, k: u32) -> Vec<f64> {
    let strata = seed.child(Purpose::Permutation, 0).permutation(rows * k);
    let all = f64::from(rows * k);
    let of = |(n, stratum): (u32, u32)| (f64::from(stratum) + jitter(seed, n / k, n % k)) / all;
    (0u32..).zip(strata).map(of).collect()
}

fn jitter(seed: Seed, index: u32, sample: u32) -> f64 {
    seed.child(Purpose::Timestep, 0).uniform(index, sample)
}
