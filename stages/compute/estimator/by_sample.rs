//! The optimizer steps of `step_every = "sample"`: AGRPO as its published program runs. Computes no gradient and takes
//! no step.
//!
//! An iteration's prompts are M micro-batches (`accumulation_steps`), in their order. With L(m, s) the mean loss of
//! sample s of micro-batch m, so that the sum over its k samples is the loss of `agrpo.rs` over m's completions, step n
//! of k descends
//! ```text
//! n = 0:  1/M [ sum over m < M, s of L(m, s)  +  L(M, 1) ]
//! n > 0:  1/M   L(M, n + 1)
//! ```
//! each at the policy that step n - 1 left; the norm is clipped for each step by itself, and all have the learning
//! rate of their iteration. Ratios leave 1 from the second step on. The steps after the first see a micro-batch alone
//! and 1/k of its loss; Adam divides their gradients by the root of their mean square all the same.
//!
//! Source: probablyabot/agrpo (98f1182), `compute_loss` under its `accelerate.yaml`: it calls `backward` for every
//! sample, and accelerate 1.12's DeepSpeed engine steps at each of them in the micro-batch that synchronises gradients.

use std::collections::BTreeMap;

use agrpo_spec::{EstimatorConfig, Seed};

use super::batch::{Batch, count};
use super::timesteps::{self, Draw};
use super::tokens::count_of;
use super::unit::Estimator;
use super::with_draws;

/// The estimators of every step, in its order: one for each batch, whose gradients sum to the step's. The batches are an
/// iteration's shards; `seed` is that of a batch's draws.
pub(crate) fn steps_by_sample<'a>(
    batches: &'a [Batch<'a>],
    config: &EstimatorConfig,
    seed: impl Fn(usize) -> Seed,
) -> Vec<Vec<Estimator<'a>>> {
    let k = count_of(config.k) as usize;
    let (parts, groups) = (u64::from(config.accumulation_steps), batches.iter().map(Batch::groups));
    let groups = groups.sum::<usize>() as u64;
    let micro_batch = |batch: &Batch<'_>, row| batch.group(row).0 * parts / groups;
    let mut completions = BTreeMap::<u64, usize>::new();
    for batch in batches {
        batch
            .counted()
            .for_each(|row| *completions.entry(micro_batch(batch, row)).or_default() += 1);
    }
    let mut steps = vec![vec![vec![]; batches.len()]; k];
    for (number, batch) in batches.iter().enumerate() {
        let rows = batch.moving(config.kl.get() > 0.0);
        // A row's k draws follow one another.
        let draws = timesteps::draw(batch, &rows, config, seed(number));
        for (n, draw) in draws.into_iter().enumerate() {
            let part = micro_batch(batch, draw.row);
            let step = if part + 1 == parts { n % k } else { 0 };
            let mean = count(completions[&part]) * f64::from(config.accumulation_steps);
            steps[step][number].push(Draw { weight: draw.weight / mean, ..draw });
        }
    }
    let of_step = |step: Vec<Vec<Draw>>| {
        let of_batch = |(batch, draws)| with_draws(batch, config, draws);
        batches.iter().zip(step).map(of_batch).collect()
    };
    steps.into_iter().map(of_step).collect()
}
