//! Computes again what the sampler recorded, by the learner's code: the check that both see one distribution.
//! Trains nothing.

use agrpo_spec::StageError;

use super::accumulate::passes;
use super::agrpo::step;
use super::batch::Batch;
use super::timesteps::Draw;
use super::unit::{Estimator, Surrogate, Unit};
use crate::model::Policy;

/// Every step of every row, whatever its advantage.
struct Records<'a> {
    batch: &'a Batch<'a>,
    steps: Vec<(usize, u32)>,
}

impl Estimator for Records<'_> {
    fn units(&self) -> usize {
        self.steps.len()
    }

    fn unit(&self, n: usize) -> Unit {
        let (row, at) = self.steps[n];
        step(self.batch, &Draw { row, step: at, weight: 0.0 })
    }

    fn surrogate(&self) -> Surrogate {
        Surrogate { clip_low: 0.2, clip_high: 0.2, temperature: 1.0, kl: 0.0, kl_ratio: true }
    }

    fn mean_over(&self) -> f64 {
        0.0
    }

    fn samples(&self) -> usize {
        self.steps.len()
    }
}

/// Log-probability and entropy (nats) of every written token under `policy` and the sampler's
/// temperature and kept sets: R x C pairs, `None` where no action wrote.
pub fn recompute(
    batch: &Batch<'_>,
    policy: &Policy,
    micro_batch: usize,
) -> Result<Vec<Option<(f64, f64)>>, StageError> {
    let trajectories = batch.trajectories();
    let of_row = |row| (0..trajectories.sampled_steps(row)).map(move |step| (row, step));
    let records = Records { batch, steps: (0..batch.rows()).flat_map(of_row).collect() };
    let temperature = batch.sampler().temperature.get();
    let mut seen = vec![];
    for pass in passes(&records, micro_batch) {
        seen.extend(pass.observe(policy, temperature)?);
    }
    let mut found = vec![None; trajectories.unmask_steps.len()];
    let cells = records.steps.iter().flat_map(|&(row, step)| {
        batch.written(row, step).map(move |position| row * trajectories.completion_len + position)
    });
    for (cell, values) in cells.zip(seen) {
        found[cell] = Some(values);
    }
    Ok(found)
}
