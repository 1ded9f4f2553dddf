//! Stages: what is asked of a worker, whole. What is not in the spec may not influence the bytes.
//!
//! Inputs are named by artifact digest. `version` is a constant of each stage kind, raised by every
//! change that alters bytes; the golden digests of `tests/golden` fail if it was forgotten.

use serde::{Deserialize, Serialize};

use crate::digest::{ArtifactDigest, Real, StageDigest, encode};
use crate::run::{
    Advantage, Cache, EstimatorConfig, ModelShape, Numerics, OptimizerConfig, PositionRule,
    RewardConfig, RolloutConfig, Task,
};
use crate::seed::Seed;

/// The six kinds of stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StageKind {
    /// Supervised fine-tuning.
    Sft,
    /// Trajectories.
    Rollout,
    /// Rewards and advantages.
    Reward,
    /// The Monte Carlo policy gradient of one shard.
    Gradient,
    /// The optimizer step.
    Update,
    /// Accuracy on held-out problems.
    Evaluation,
}

impl StageKind {
    /// All kinds, in the order of the chain.
    pub const ALL: [Self; 6] =
        [Self::Sft, Self::Rollout, Self::Reward, Self::Gradient, Self::Update, Self::Evaluation];

    /// The name in digests, manifests and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sft => "sft",
            Self::Rollout => "rollout",
            Self::Reward => "reward",
            Self::Gradient => "gradient",
            Self::Update => "update",
            Self::Evaluation => "evaluation",
        }
    }

    /// The current version of the kind's bytes.
    pub fn version(self) -> u32 {
        match self {
            Self::Sft | Self::Reward | Self::Update => 2,
            Self::Rollout | Self::Gradient | Self::Evaluation => 3,
        }
    }
}

impl std::fmt::Display for StageKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// How completions are sampled; shared by rollout and evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, bincode::Encode)]
#[serde(deny_unknown_fields)]
pub struct Sampler {
    /// Tokens of a completion.
    pub completion_tokens: u32,
    /// Tokens of a block.
    pub block_tokens: u32,
    /// Unmask steps.
    pub steps: u32,
    /// Divides the logits; 0 is greedy.
    pub temperature: Real,
    /// Keeps the k most probable tokens; 0 keeps all.
    pub top_k: u32,
    /// Keeps the most probable tokens up to this mass; 1 keeps all.
    pub top_p: Real,
    /// Which positions a step unmasks.
    pub position: PositionRule,
    /// Scale of classifier-free guidance; 0 is none.
    pub guidance: Real,
    /// Keys and values that the passes of a block take over from its first.
    #[serde(default)]
    pub cache: Cache,
    /// Probability from which on a step writes every token beside the most probable one; none writes as
    /// `steps` says.
    #[serde(default)]
    pub threshold: Option<Real>,
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
            guidance: Real::new(0.0).expect("zero is finite"),
            cache: rollout.cache,
            threshold: rollout.threshold,
        }
    }
}

/// Where fine-tuning starts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, bincode::Encode)]
#[serde(rename_all = "kebab-case")]
pub enum SftStart {
    /// New weights of this shape, drawn from the stage's seed.
    Scratch(ModelShape),
    /// The policy and optimizer state that the previous chunk left.
    Continue {
        /// A policy folder.
        policy: ArtifactDigest,
        /// The optimizer's state.
        optimizer: ArtifactDigest,
    },
}

/// Steps `first_step..first_step + steps` of masked-diffusion fine-tuning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, bincode::Encode)]
#[serde(deny_unknown_fields)]
pub struct SftSpec {
    /// Version of the kind.
    pub version: u32,
    /// Numerics class.
    pub numerics: Numerics,
    /// The run's seed.
    pub seed: Seed,
    /// Where the solutions come from.
    pub task: Task,
    /// Tokens of a completion.
    pub completion_tokens: u32,
    /// Where it starts.
    pub start: SftStart,
    /// First step of this chunk.
    pub first_step: u32,
    /// Steps of this chunk.
    pub steps: u32,
    /// Steps of all chunks, for the schedule.
    pub total_steps: u32,
    /// Sequences of a step.
    pub batch: u32,
    /// Sequences of a pass.
    pub micro_batch: u32,
    /// The first step whose demonstrator is careless.
    pub careless_from: u32,
    /// Share of the hard problems that it answers wrongly.
    pub careless_share: Real,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
}

/// One shard of an iteration's trajectories.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, bincode::Encode)]
#[serde(deny_unknown_fields)]
pub struct RolloutSpec {
    /// Version of the kind.
    pub version: u32,
    /// Numerics class.
    pub numerics: Numerics,
    /// The run's seed.
    pub seed: Seed,
    /// Where the prompts come from.
    pub task: Task,
    /// The policy folder that samples.
    pub policy: ArtifactDigest,
    /// Iteration, from 1.
    pub iteration: u32,
    /// The shard's first prompt, counted over the whole run.
    pub first_prompt: u64,
    /// Prompts of the shard.
    pub prompts: u32,
    /// Completions of a prompt.
    pub group: u32,
    /// Distinct states of a pass.
    pub micro_batch: u32,
    /// How completions are sampled.
    pub sampler: Sampler,
}

/// Rewards and advantages of one shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, bincode::Encode)]
#[serde(deny_unknown_fields)]
pub struct RewardSpec {
    /// Version of the kind.
    pub version: u32,
    /// Numerics class.
    pub numerics: Numerics,
    /// Who grades.
    pub task: Task,
    /// What is graded.
    pub trajectories: ArtifactDigest,
    /// Completions of a prompt.
    pub group: u32,
    /// What the parts of a grade weigh.
    pub reward: RewardConfig,
    /// From rewards to advantages.
    pub advantage: Advantage,
}

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
    /// The policy folder that sampled the trajectories.
    pub behaviour: ArtifactDigest,
    /// The policy folder that the divergence is measured from; none without a KL term.
    pub reference: Option<ArtifactDigest>,
    /// What was sampled.
    pub trajectories: ArtifactDigest,
    /// What it was worth.
    pub rewards: ArtifactDigest,
    /// Completions of a prompt.
    pub group: u32,
    /// Iteration, from 1.
    pub iteration: u32,
    /// Which of the updates from these trajectories, from 1.
    pub inner: u32,
    /// The shard, for the seed of what is drawn.
    pub shard: u32,
    /// How the trajectories were sampled.
    pub sampler: Sampler,
    /// The estimator.
    pub estimator: EstimatorConfig,
}

/// One optimizer step from the mean of all shards' gradients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, bincode::Encode)]
#[serde(deny_unknown_fields)]
pub struct UpdateSpec {
    /// Version of the kind.
    pub version: u32,
    /// Numerics class.
    pub numerics: Numerics,
    /// The policy folder that is moved.
    pub policy: ArtifactDigest,
    /// The optimizer's state after the previous update; none before the first.
    pub optimizer_state: Option<ArtifactDigest>,
    /// One gradient a shard, in the order of shards.
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
}

/// Accuracy of a policy on held-out problems.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, bincode::Encode)]
#[serde(deny_unknown_fields)]
pub struct EvaluationSpec {
    /// Version of the kind.
    pub version: u32,
    /// Numerics class.
    pub numerics: Numerics,
    /// Root of everything that is drawn.
    pub seed: Seed,
    /// Where the problems come from.
    pub task: Task,
    /// The policy folder that is measured.
    pub policy: ArtifactDigest,
    /// Held-out problems.
    pub problems: u32,
    /// Completions of a problem by a sampler with a temperature; greedy ones write one.
    pub samples: u32,
    /// Distinct states of a pass.
    pub micro_batch: u32,
    /// Each is measured by itself; the first gives `accuracy`.
    pub samplers: Vec<Sampler>,
}

/// Any stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StageSpec {
    /// Supervised fine-tuning.
    Sft(SftSpec),
    /// Trajectories.
    Rollout(RolloutSpec),
    /// Rewards and advantages.
    Reward(RewardSpec),
    /// The policy gradient of one shard.
    Gradient(GradientSpec),
    /// The optimizer step.
    Update(UpdateSpec),
    /// Accuracy on held-out problems.
    Evaluation(EvaluationSpec),
}

impl StageSpec {
    /// Which kind of stage.
    pub fn kind(&self) -> StageKind {
        match self {
            Self::Sft(_) => StageKind::Sft,
            Self::Rollout(_) => StageKind::Rollout,
            Self::Reward(_) => StageKind::Reward,
            Self::Gradient(_) => StageKind::Gradient,
            Self::Update(_) => StageKind::Update,
            Self::Evaluation(_) => StageKind::Evaluation,
        }
    }

    /// The stage's name.
    pub fn digest(&self) -> StageDigest {
        let bytes = match self {
            Self::Sft(spec) => encode(spec),
            Self::Rollout(spec) => encode(spec),
            Self::Reward(spec) => encode(spec),
            Self::Gradient(spec) => encode(spec),
            Self::Update(spec) => encode(spec),
            Self::Evaluation(spec) => encode(spec),
        };
        StageDigest::of(self.kind().name(), &bytes)
    }

    /// The class of numerics that a worker must honour.
    pub fn numerics(&self) -> Numerics {
        match self {
            Self::Sft(spec) => spec.numerics,
            Self::Rollout(spec) => spec.numerics,
            Self::Reward(spec) => spec.numerics,
            Self::Gradient(spec) => spec.numerics,
            Self::Update(spec) => spec.numerics,
            Self::Evaluation(spec) => spec.numerics,
        }
    }

    /// The version of the kind that the spec was made for.
    pub fn version(&self) -> u32 {
        match self {
            Self::Sft(spec) => spec.version,
            Self::Rollout(spec) => spec.version,
            Self::Reward(spec) => spec.version,
            Self::Gradient(spec) => spec.version,
            Self::Update(spec) => spec.version,
            Self::Evaluation(spec) => spec.version,
        }
    }

    /// Every artifact that the stage reads, with the role it plays.
    pub fn inputs(&self) -> Vec<(&'static str, ArtifactDigest)> {
        match self {
            Self::Sft(SftSpec { start: SftStart::Scratch(_), .. }) => vec![],
            Self::Sft(SftSpec { start: SftStart::Continue { policy, optimizer }, .. }) => {
                vec![("policy", *policy), ("optimizer", *optimizer)]
            }
            Self::Rollout(spec) => vec![("policy", spec.policy)],
            Self::Reward(spec) => vec![("trajectories", spec.trajectories)],
            Self::Gradient(spec) => {
                let own = [
                    ("policy", spec.policy),
                    ("trajectories", spec.trajectories),
                    ("rewards", spec.rewards),
                    ("behaviour", spec.behaviour),
                ];
                own.into_iter().chain(spec.reference.map(|base| ("reference", base))).collect()
            }
            Self::Update(spec) => std::iter::once(("policy", spec.policy))
                .chain(spec.optimizer_state.map(|state| ("optimizer", state)))
                .chain(spec.gradients.iter().map(|&gradient| ("gradient", gradient)))
                .collect(),
            Self::Evaluation(spec) => vec![("policy", spec.policy)],
        }
    }
}
