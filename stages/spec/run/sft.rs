//! The section `[sft]`: how a run makes its own base.

use serde::{Deserialize, Serialize};

use super::defaults;
use super::optimizer::OptimizerConfig;
use crate::digest::Real;

/// Masked-diffusion fine-tuning on the task's own solutions, before iteration 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, bincode::Encode)]
#[serde(deny_unknown_fields)]
pub struct SftConfig {
    /// Optimizer steps.
    pub steps: u32,
    /// Sequences of a step.
    pub batch: u32,
    /// Steps of one stage: what a crash can cost.
    pub steps_per_stage: u32,
    /// Sequences of one forward and backward pass.
    pub micro_batch: u32,
    /// The last of the steps, which learn from noisy demonstrations: right on easy problems, mostly wrong on
    /// hard ones. The base then knows more than it answers greedily.
    #[serde(default)]
    pub careless_steps: u32,
    /// Share of the hard problems whose noisy demonstrations are wrong.
    #[serde(default = "defaults::most")]
    pub careless_share: Real,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
}
