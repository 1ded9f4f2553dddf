//! How far the ratio of a fresh trajectory is from 1, and why: which batches give a row of a product, or a sequence of
//! an attention, the same bits. Fresh ratios are 1 to the bit where sampler and learner compute every row by the same
//! kernel; on a GPU, libraries choose kernels by the shape of a batch.

use agrpo_compute::model::check_batches;
use agrpo_compute::sampler::sample;
use agrpo_compute::{Device, Threads};
use agrpo_spec::Precision;
use serde::Serialize;

use super::load::Load;
use super::model::as_trained;
use super::rows::Rows;

/// The deviation at one size of the learner's batch.
#[derive(Clone, Copy, Debug, Serialize)]
struct Fresh {
    /// Largest |ratio - 1|; 0 is the goal.
    ratio_deviation: f64,
    /// Ratios that were computed.
    ratios: f64,
    /// States of a pass of the sampler, and of the learner.
    sampler_states: u32,
    learner_states: u32,
}

/// Reports the deviation in f32 and bf16, for learners of one state a pass and of as many as the sampler's; and the
/// batches that share a kernel.
pub fn ratio(load: &Load, device: Device, rows: &mut Rows<'_>) {
    for (half, named) in [(false, "f32"), (true, "bf16")] {
        let load = Load { half, ..load.clone() };
        let sampler = load.measured_sampler();
        let sampled = rows.prepare(&format!("sampled, {named}"), |_| {
            let policy = as_trained(load.policy(device)?)?;
            let count = load.sequences as usize;
            let all = sample(&policy, &load.rows(), &sampler, count, &Threads::one())?;
            Ok((policy, all))
        });
        let Some((policy, all)) = sampled else { continue };
        for learner_states in [1, load.sequences] {
            let name = format!("ratio, {learner_states} states a pass, {named}");
            rows.add(&name, |_| {
                let load = Load { gradient_states: learner_states, ..load.clone() };
                let measured = load.differentiate(&policy, &all, &sampler, true)?.measured;
                Ok(Fresh {
                    ratio_deviation: measured.ratio_deviation,
                    ratios: measured.factors,
                    sampler_states: load.sequences,
                    learner_states,
                })
            });
        }
        let precision = if half { Precision::Bf16 } else { Precision::F32 };
        rows.add(&format!("batches, {named}"), |_| {
            Ok(check_batches(device, precision, &load.model, load.vocabulary))
        });
    }
}
