//! The section `[evaluation]`.

use serde::{Deserialize, Serialize};

use super::defaults;
use super::sampler::{Cache, PositionRule};
use crate::digest::Real;

/// Greedy decoding of held-out problems.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, bincode::Encode)]
#[serde(deny_unknown_fields)]
pub struct EvaluationConfig {
    /// Held-out problems.
    pub problems: u32,
    /// Iterations from one evaluation to the next; base and final policy are always evaluated.
    pub every: u32,
    /// Unmask steps to evaluate at; the first is the one that progress and status report.
    pub steps: Vec<u32>,
    /// Which positions a step unmasks.
    #[serde(default = "low_confidence")]
    pub position: PositionRule,
    /// Tokens of a completion; left out, as in rollouts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_tokens: Option<u32>,
    /// Tokens of a block; left out, as in rollouts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_tokens: Option<u32>,
    /// Scale of classifier-free guidance; 0 is none.
    #[serde(default = "defaults::zero")]
    pub guidance: Real,
    /// As in rollouts, but of its own.
    #[serde(default)]
    pub cache: Cache,
    /// As in rollouts, but of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<Real>,
    /// Distinct states of one forward pass.
    pub micro_batch: u32,
}

fn low_confidence() -> PositionRule {
    PositionRule::LowConfidence
}
