//! The section `[rollout]`.

use serde::{Deserialize, Serialize};

use super::defaults;
use super::sampler::{Cache, PositionRule, Sampler};
use crate::digest::Real;

/// How trajectories are sampled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, bincode::Encode)]
#[serde(deny_unknown_fields)]
pub struct RolloutConfig {
    /// Prompts of an iteration.
    pub prompts: u32,
    /// Completions of a prompt.
    pub group: u32,
    /// Stages that share an iteration's prompts. Part of the result, unlike the number of workers.
    pub shards: u32,
    /// Distinct states of one forward pass.
    pub micro_batch: u32,
    /// Tokens of a completion.
    pub completion_tokens: u32,
    /// Tokens of a block; blocks are written from left to right.
    pub block_tokens: u32,
    /// Unmask steps of a completion.
    pub steps: u32,
    /// Divides the logits.
    #[serde(default = "defaults::temperature")]
    pub temperature: Real,
    /// Keeps the k most probable tokens; 0 keeps all.
    #[serde(default = "defaults::top_k")]
    pub top_k: u32,
    /// Keeps the most probable tokens whose probabilities sum to at most this; 1 keeps all.
    #[serde(default = "defaults::top_p")]
    pub top_p: Real,
    /// Which positions a step unmasks.
    #[serde(default = "random_position")]
    pub position: PositionRule,
    /// Keys and values that the passes of a block take over from its first.
    #[serde(default)]
    pub cache: Cache,
    /// A step also writes every token that is at least so probable; none writes as `steps` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<Real>,
}

fn random_position() -> PositionRule {
    PositionRule::Random
}

impl From<&RolloutConfig> for Sampler {
    fn from(rollout: &RolloutConfig) -> Self {
        Self {
            completion_tokens: rollout.completion_tokens,
            block_tokens: rollout.block_tokens,
            steps: rollout.steps,
            temperature: rollout.temperature,
            top_k: rollout.top_k,
            top_p: rollout.top_p,
            position: rollout.position,
            // The learner knows the policy's own distribution, not a guided one.
            guidance: defaults::zero(),
            cache: rollout.cache,
            threshold: rollout.threshold,
        }
    }
}

/// Whether a completion can be unmasked in so many steps: they share out evenly over the blocks, and the
/// tokens over them.
pub fn allows_steps(completion_tokens: u32, block_tokens: u32, steps: u32) -> bool {
    let blocks = completion_tokens / block_tokens;
    steps >= 1 && steps.is_multiple_of(blocks) && completion_tokens.is_multiple_of(steps)
}
