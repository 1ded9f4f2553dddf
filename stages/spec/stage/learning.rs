//! The specs of learning from trajectories: gradients and updates, stage by stage, or all updates of an iteration as
//! one stage. Field order is part of their names.

use serde::{Deserialize, Serialize};

use crate::digest::ArtifactDigest;
use crate::run::{EstimatorConfig, LoraConfig, Numerics, OptimizerConfig, Precision, Sampler};
use crate::seed::Seed;

/// The policy gradient of one shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, bincode::Encode)]
#[serde(deny_unknown_fields)]
pub struct GradientSpec {
    /// Version of the kind.
    pub version: u32,
    /// Numerics class.
    pub numerics: Numerics,
    /// The run's seed.
    pub seed: Seed,
    /// The policy folder that is differentiated.
    pub policy: ArtifactDigest,
    /// The number format of the weights of all its policies.
    pub precision: Precision,
    /// The policy folder that sampled the trajectories.
    pub behaviour: ArtifactDigest,
    /// The policy folder that the divergence is measured from; none without a KL term.
    pub reference: Option<ArtifactDigest>,
    /// The trajectories.
    pub trajectories: ArtifactDigest,
    /// The rewards of the trajectories.
    pub rewards: ArtifactDigest,
    /// Completions of a prompt.
    pub group: u32,
    /// Iteration, from 1.
    pub iteration: u32,
    /// Which of the updates from these trajectories, from 1.
    pub inner: u32,
    /// The shard; part of the seed of all draws.
    pub shard: u32,
    /// How the trajectories were sampled.
    pub sampler: Sampler,
    /// The estimator.
    pub estimator: EstimatorConfig,
    /// The adapter that is trained instead of all weights. A folder without one gets a new one, drawn from the seed.
    pub lora: Option<LoraConfig>,
}

/// One optimizer step from the mean of all shards' gradients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, bincode::Encode)]
#[serde(deny_unknown_fields)]
pub struct UpdateSpec {
    /// Version of the kind.
    pub version: u32,
    /// Numerics class.
    pub numerics: Numerics,
    /// The policy folder that is updated.
    pub policy: ArtifactDigest,
    /// The optimizer's state after the previous update; none before the first.
    pub optimizer_state: Option<ArtifactDigest>,
    /// One gradient for each shard, in the order of shards.
    pub gradients: Vec<ArtifactDigest>,
    /// Iteration, from 1.
    pub iteration: u32,
    /// Which of the iteration's updates, from 1.
    pub inner: u32,
    /// Updates of an iteration.
    pub inner_updates: u32,
    /// Iterations of the run, for the schedule.
    pub iterations: u32,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
    /// The run's seed, for a new adapter.
    pub seed: Seed,
    /// As in the gradients' specs.
    pub lora: Option<LoraConfig>,
}

/// The trajectories of one shard and their rewards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, bincode::Encode)]
#[serde(deny_unknown_fields)]
pub struct ShardSpec {
    /// The trajectories.
    pub trajectories: ArtifactDigest,
    /// The rewards of the trajectories.
    pub rewards: ArtifactDigest,
}

/// All inner updates of an iteration, from the trajectories and rewards of all its shards. The policy and the
/// optimizer's state are those that the iteration's gradient and update stages would leave, to the byte, where those
/// can take the estimator's steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, bincode::Encode)]
#[serde(deny_unknown_fields)]
pub struct UpdatesSpec {
    /// Version of the kind.
    pub version: u32,
    /// Numerics class.
    pub numerics: Numerics,
    /// The run's seed.
    pub seed: Seed,
    /// The policy folder that is updated, which sampled the trajectories.
    pub policy: ArtifactDigest,
    /// The number format of the weights of all its policies.
    pub precision: Precision,
    /// The optimizer's state after the previous iteration; none before the first.
    pub optimizer_state: Option<ArtifactDigest>,
    /// The policy folder that the divergence is measured from; none without a KL term.
    pub reference: Option<ArtifactDigest>,
    /// In the order of shards, which is part of the seed of all draws.
    pub shards: Vec<ShardSpec>,
    /// Completions of a prompt.
    pub group: u32,
    /// Iteration, from 1.
    pub iteration: u32,
    /// Iterations of the run, for the schedule.
    pub iterations: u32,
    /// How the trajectories were sampled.
    pub sampler: Sampler,
    /// The estimator, with the number of inner updates.
    pub estimator: EstimatorConfig,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
    /// As in a gradient's spec.
    pub lora: Option<LoraConfig>,
}
