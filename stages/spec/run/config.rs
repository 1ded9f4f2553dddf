//! A run file as written, with its defaults filled in.

use serde::{Deserialize, Serialize};

use super::defaults;
use super::{
    Advantage, CheckpointConfig, EstimatorConfig, EvaluationConfig, GridCell, LoraConfig,
    ModelShape, Numerics, OptimizerConfig, Retention, RewardConfig, RolloutConfig, Sampler,
    SftConfig, Task,
};
use crate::digest::{Appended, ArtifactDigest, Real};

/// The length of the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, bincode::Encode)]
#[serde(deny_unknown_fields)]
pub struct TrainingConfig {
    /// Policy updates.
    pub iterations: u32,
}

/// A run file, with its defaults filled in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, bincode::Encode)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// The run's label; part of its identity. 1 to 64 letters, digits, `-`, `_` or `.`; of a run file, not
    /// `-` first, which commands would take for an option, and not dots alone, which are folders.
    pub name: String,
    /// Root of all randomness of the run.
    pub seed: u64,
    /// The numerics class: how far results are equal to the bit.
    #[serde(default)]
    pub numerics: Numerics,
    /// The task.
    pub task: Task,
    /// The shape of the run's own model; requires `sft`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelShape>,
    /// The fine-tuning that makes the base, before reinforcement learning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sft: Option<SftConfig>,
    /// The base, if it is a checkpoint; instead of `model` and `sft`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointConfig>,
    /// How trajectories are sampled.
    pub rollout: RolloutConfig,
    /// How completions are rewarded.
    #[serde(default)]
    pub reward: RewardConfig,
    /// How rewards become advantages.
    #[serde(default)]
    pub advantage: Advantage,
    /// The policy gradient.
    pub estimator: EstimatorConfig,
    /// The policy's optimizer.
    pub optimizer: OptimizerConfig,
    /// The adapter that is trained instead of all weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
    /// The length of the run.
    pub training: TrainingConfig,
    /// How progress is measured.
    pub evaluation: EvaluationConfig,
    /// Which results are kept; not part of the run's identity or record.
    #[serde(default, skip_serializing)]
    pub retention: Retention,
}

impl RunConfig {
    /// Whether the adapter is merged into its base before sampling.
    pub fn merges_adapter(&self) -> bool {
        self.lora.as_ref().is_some_and(|lora| lora.merge_for_sampling)
    }

    /// Tokens of a completion in evaluations.
    pub fn evaluation_completion_tokens(&self) -> u32 {
        self.evaluation.completion_tokens.unwrap_or(self.rollout.completion_tokens)
    }

    /// Tokens of a block in evaluations.
    pub fn evaluation_block_tokens(&self) -> u32 {
        self.evaluation.block_tokens.unwrap_or(self.rollout.block_tokens)
    }

    /// Stages that share the problems of an evaluation; 1 where one computes all.
    pub fn evaluation_shards(&self) -> u32 {
        self.evaluation.shards.0.unwrap_or(1)
    }

    /// The greedy sampler of the run's evaluations at this many unmask steps.
    pub fn evaluation_sampler(&self, steps: u32) -> Sampler {
        let evaluation = &self.evaluation;
        Sampler {
            completion_tokens: self.evaluation_completion_tokens(),
            block_tokens: self.evaluation_block_tokens(),
            steps,
            temperature: Real::default(),
            top_k: 0,
            top_p: defaults::real(1.0),
            position: evaluation.position,
            guidance: evaluation.guidance,
            cache: evaluation.cache,
            threshold: evaluation.threshold,
        }
    }

    /// The samplers of the run's evaluations: one for each number of `steps`, then those of the grid's other cells.
    pub fn evaluation_samplers(&self) -> Vec<Sampler> {
        let steps = self.evaluation.steps.iter();
        let mut all: Vec<Sampler> = steps.map(|&steps| self.evaluation_sampler(steps)).collect();
        for &GridCell { completion_tokens, steps } in self.evaluation.grid.0.iter().flatten() {
            let sampler = Sampler { completion_tokens, ..self.evaluation_sampler(steps) };
            if !all.contains(&sampler) {
                all.push(sampler);
            }
        }
        all
    }

    /// Tokens of the longest completion in evaluations.
    pub fn longest_evaluation(&self) -> u32 {
        let grid = self.evaluation.grid.0.iter().flatten().map(|cell| cell.completion_tokens);
        grid.fold(self.evaluation_completion_tokens(), u32::max)
    }

    /// Every small file that the run's problems and grades come from, with its role.
    pub fn material(&self) -> Vec<(String, ArtifactDigest)> {
        let datasets = self.task.datasets().into_iter();
        let datasets = datasets.map(|(role, digest)| (format!("dataset {role}"), digest));
        let program = self.reward.files.iter();
        datasets.chain(program.map(|(name, digest)| (format!("program {name}"), *digest))).collect()
    }

    /// The grader of evaluations, if the task has none of its own.
    pub fn grading(&self) -> Appended<RewardConfig> {
        Appended(matches!(self.task, Task::Dataset(_)).then(|| self.reward.clone()))
    }
}
