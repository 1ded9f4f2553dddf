//! The dispatcher of estimator kinds: one arm each.

use agrpo_spec::{EstimatorConfig, EstimatorKind, Seed};

use super::agrpo::Agrpo;
use super::ar_grpo::ArGrpo;
use super::batch::Batch;
use super::coupled_grpo::CoupledGrpo;
use super::diffu_grpo::DiffuGrpo;
use super::merged_step::MergedStep;
use super::unit::Estimator;

/// The estimator that the configuration names, for one batch. Equal seeds give equal estimates.
pub fn estimator<'a>(
    batch: &'a Batch<'a>,
    config: &EstimatorConfig,
    seed: Seed,
) -> Box<dyn Estimator + 'a> {
    match config.kind {
        EstimatorKind::Agrpo => Box::new(Agrpo::new(batch, config, seed)),
        EstimatorKind::DiffuGrpo => Box::new(DiffuGrpo::new(batch, config, seed)),
        EstimatorKind::CoupledGrpo => Box::new(CoupledGrpo::new(batch, config, seed)),
        EstimatorKind::MergedStep => Box::new(MergedStep::new(batch, config, seed)),
        EstimatorKind::ArGrpo => Box::new(ArGrpo::new(batch, config, seed)),
    }
}
