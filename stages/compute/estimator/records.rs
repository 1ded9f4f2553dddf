//! Log-probabilities by themselves: the sampler's records computed with the learner's code, to check that both compute one
//! distribution, and those that an estimator's ratios are made of. Trains nothing.

use agrpo_spec::StageError;
use tch::no_grad_guard;

use super::pass::{Pass, passes};
use super::unit::{Estimator, Surrogate};
use super::{agrpo::step, batch::Batch, timesteps::Draw};
use crate::model::Policy;
use crate::tensors::numbers;

/// Log-probability and entropy (nats) of every written token under `policy` and the sampler's
/// temperature and kept sets: R x C pairs, `None` where no action wrote.
pub fn recompute(
    batch: &Batch<'_>,
    policy: &Policy,
    micro_batch: usize,
) -> Result<Vec<Option<(f64, f64)>>, StageError> {
    let trajectories = batch.trajectories;
    let of_row = |row| (0..trajectories.sampled_steps(row)).map(move |step| (row, step));
    let steps: Vec<_> = (0..batch.rows()).flat_map(of_row).collect();
    let temperature = batch.sampler.temperature.get();
    // Every step of every row, whatever its advantage.
    let records = Estimator {
        units: steps.len(),
        unit: Box::new(|n| {
            let (row, at) = steps[n];
            step(batch, &Draw { row, step: at, weight: 0.0 })
        }),
        surrogate: Surrogate::default(),
        mean_over: 0.0,
        samples: steps.len(),
    };
    let mut found = vec![None; trajectories.unmask_steps.len()];
    for units in passes(&records, micro_batch, policy.pads()) {
        let cells = units.iter().flat_map(|&n| {
            let (row, step) = steps[n];
            batch
                .written(row, step)
                .map(move |position| row * trajectories.completion_len + position)
        });
        for (cell, values) in cells.zip(Pass::of(&records, &units).observe(policy, temperature)?) {
            found[cell] = Some(values);
        }
    }
    Ok(found)
}

/// log p of every ratio under `policy`, unit by unit: in the order of rows and of their samples, then of positions.
pub fn log_probabilities(
    estimator: &Estimator<'_>,
    policy: &Policy,
) -> Result<Vec<f64>, StageError> {
    let _no_grad = no_grad_guard();
    let of_unit = |unit| {
        let pass = Pass::of(estimator, &[unit]);
        numbers(&pass.log_probabilities(policy, &estimator.surrogate)?)
    };
    let all: Vec<Vec<f64>> = (0..estimator.units).map(of_unit).collect::<Result<_, _>>()?;
    Ok(all.concat())
}
