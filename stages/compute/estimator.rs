//! Policy-gradient estimators, one file each: from trajectories with advantages to units of states and
//! ratios, whose losses' gradients sum to the estimate.
//!
//! A kind decides which states are computed, which reads are taken from them and with what weight. Ratios, clipping,
//! divergence and passes are the same code for all kinds. Everything random is a function of the seed. Clips no norm
//! and takes no optimizer step.

mod agrpo;
mod ar_grpo;
mod batch;
mod by_sample;
mod coupled_grpo;
mod diffu_grpo;
mod merged_step;
mod pass;
mod picks;
mod reads;
mod records;
pub mod timesteps;
mod tokens;
mod unit;

#[cfg(test)]
mod tests;

use agrpo_spec::{EstimatorConfig, EstimatorKind, Seed};

pub use agrpo::with_draws;
pub use batch::{Batch, Worth};
pub(crate) use by_sample::steps_by_sample;
pub use coupled_grpo::{Halves, with_halves};
pub use diffu_grpo::with_prompts;
pub use merged_step::with_segments;
pub use pass::{Estimate, Measured, Policies, accumulate};
pub use records::{log_probabilities, recompute};
pub use tokens::Given;
pub use unit::Estimator;

/// The estimator that the configuration names, for one batch. Equal seeds give equal estimates.
pub fn estimator<'a>(batch: &'a Batch<'a>, config: &EstimatorConfig, seed: Seed) -> Estimator<'a> {
    let new = match config.kind {
        EstimatorKind::Agrpo => agrpo::new,
        EstimatorKind::DiffuGrpo => diffu_grpo::new,
        EstimatorKind::CoupledGrpo => coupled_grpo::new,
        EstimatorKind::MergedStep => merged_step::new,
        EstimatorKind::ArGrpo => ar_grpo::new,
    };
    new(batch, config, seed)
}
