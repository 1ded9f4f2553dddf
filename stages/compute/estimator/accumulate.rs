//! An estimate, pass by pass: units are built in their order and packed into passes, one of which is in memory
//! at a time. Knows no kind of estimator.

use agrpo_spec::{EstimatorConfig, StageError};

use super::pass::{Measured, Pass, Policies};
use super::unit::Estimator;

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
pub(super) fn passes(estimator: &dyn Estimator, micro_batch: usize) -> impl Iterator<Item = Pass> {
    let mut units = (0..estimator.units()).map(|n| estimator.unit(n)).peekable();
    std::iter::from_fn(move || {
        let mut pass = Pass::default();
        while let Some(unit) = units.next_if(|unit| pass.has_room(unit, micro_batch)) {
            pass.push(unit);
        }
        (!pass.is_empty()).then_some(pass)
    })
}
