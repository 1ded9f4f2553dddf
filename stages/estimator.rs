//! Policy-gradient estimators, one file each: from trajectories with advantages to units of states and
//! ratios, whose losses' gradients sum to the estimate.
//!
//! A kind decides which states are looked at, what is read off them and with what weight; the rest
//! (ratios, clipping, divergence, passes) is the same code for all. Everything random is a function
//! of the seed. Not here: clipping of norms, optimizer steps.

mod agrpo;
mod ar_grpo;
mod batch;
mod coupled_grpo;
mod diffu_grpo;
mod merged_step;
mod pass;
mod reads;
mod records;
pub mod timesteps;

#[cfg(test)]
mod tests;

use agrpo_spec::{EstimatorConfig, EstimatorKind, Seed, StageError};

pub use agrpo::Agrpo;
pub use batch::{Batch, Worth};
pub use pass::{Event, Factor, Measured, Pass, Policies, Read, Support, Surrogate, Unit};
pub use records::recompute;

/// A kind of estimator, applied to one batch: numbered units, built when they are asked for.
pub trait Estimator {
    /// How many units there are.
    fn units(&self) -> usize;
    /// One of them.
    fn unit(&self, n: usize) -> Unit;
    /// How ratios become a loss.
    fn surrogate(&self) -> Surrogate;
    /// What the loss is a mean over, counted: completions, or tokens. 0 where there is nothing to learn.
    /// An update weighs its shards by it, so that the mean is one over all of them.
    fn mean_over(&self) -> f64;
    /// Forward and backward passes asked for, in states: what the estimate would cost if no two states
    /// were equal.
    fn samples(&self) -> usize;
}

/// The estimator that the configuration names, for one batch. Equal seeds give equal estimates.
pub fn estimator<'a>(
    batch: &'a Batch<'a>,
    config: &EstimatorConfig,
    seed: Seed,
) -> Box<dyn Estimator + 'a> {
    match config.kind {
        EstimatorKind::Agrpo => Box::new(Agrpo::new(batch, config, seed)),
        EstimatorKind::DiffuGrpo => Box::new(diffu_grpo::DiffuGrpo::new(batch, config, seed)),
        EstimatorKind::CoupledGrpo => Box::new(coupled_grpo::CoupledGrpo::new(batch, config, seed)),
        EstimatorKind::MergedStep => Box::new(merged_step::MergedStep::new(batch, config, seed)),
        EstimatorKind::ArGrpo => Box::new(ar_grpo::ArGrpo::new(batch, config, seed)),
    }
}

/// How much of an estimate is in memory at once. A number alone is a micro-batch, without checkpointing.
#[derive(Clone, Copy, Debug)]
pub struct Portion {
    /// Distinct states of one pass.
    pub micro_batch: usize,
    /// Whether a pass keeps the inputs of its blocks alone.
    pub checkpointing: bool,
}

impl From<usize> for Portion {
    fn from(micro_batch: usize) -> Self {
        Self { micro_batch, checkpointing: false }
    }
}

impl From<&EstimatorConfig> for Portion {
    fn from(config: &EstimatorConfig) -> Self {
        let micro_batch = config.micro_batch as usize;
        Self { micro_batch, checkpointing: config.checkpointing }
    }
}

/// Adds the estimate to the gradients of the policy, pass by pass.
pub fn accumulate(
    estimator: &dyn Estimator,
    policies: &Policies<'_>,
    portion: impl Into<Portion>,
) -> Result<Measured, StageError> {
    let (surrogate, portion) = (estimator.surrogate(), portion.into());
    let mut total = Measured::default();
    for pass in passes(estimator, portion.micro_batch) {
        total.add(&pass.backward(policies, &surrogate, portion.checkpointing)?);
    }
    Ok(total)
}

/// The units in their order, packed into passes. One pass is in memory at a time.
fn passes(estimator: &dyn Estimator, micro_batch: usize) -> impl Iterator<Item = Pass> {
    let mut units = (0..estimator.units()).map(|n| estimator.unit(n)).peekable();
    std::iter::from_fn(move || {
        let mut pass = Pass::default();
        while let Some(unit) = units.next_if(|unit| pass.has_room(unit, micro_batch)) {
            pass.push(unit);
        }
        (!pass.is_empty()).then_some(pass)
    })
}

/// What GRPO's descendants share: clipping as configured, untempered logits, the plain divergence.
fn untempered(config: &EstimatorConfig) -> Surrogate {
    Surrogate {
        clip_low: config.clip_low.get(),
        clip_high: config.clip_high.get(),
        temperature: 1.0,
        kl: config.kl.get(),
        kl_ratio: false,
    }
}

fn length(n: usize) -> i64 {
    i64::try_from(n).expect("lengths and ids fit")
}
