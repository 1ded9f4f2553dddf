//! Stage specs: everything that a worker needs to know. Nothing outside the spec may influence a result's bytes.
//!
//! Inputs are named by artifact digest. `version` is a constant of each stage kind, raised by every
//! change that alters bytes; the golden digests of `tests/golden` fail if it was forgotten.

use serde::{Deserialize, Serialize};

use crate::digest::{Appended, ArtifactDigest, Real, StageDigest, encode};
use crate::run::{
    Advantage, Language, ModelShape, Numerics, OptimizerConfig, Precision, RewardConfig, Sampler,
    Task,
};
use crate::{names::named, seed::Seed};

mod learning;

pub use learning::{GradientSpec, ShardSpec, UpdateSpec, UpdatesSpec};

/// The seven kinds of stage, in the order of the chain.
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
    /// All inner updates of an iteration, in place of its gradients and updates.
    Updates,
    /// Accuracy on held-out problems.
    Evaluation,
}

named!(StageKind {
    Sft: "sft",
    Rollout: "rollout",
    Reward: "reward",
    Gradient: "gradient",
    Update: "update",
    Updates: "updates",
    Evaluation: "evaluation",
});

impl StageKind {
    /// The current version of the kind's bytes.
    pub fn version(self) -> u32 {
        match self {
            Self::Updates => 1,
            Self::Reward | Self::Sft | Self::Update => 4,
            Self::Rollout | Self::Gradient | Self::Evaluation => 6,
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
    /// The first step that learns from noisy demonstrations.
    #[serde(rename = "careless_from")]
    pub noisy_from: u32,
    /// Share of the hard problems whose demonstrations are wrong.
    #[serde(rename = "careless_share")]
    pub noisy_share: Real,
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
    /// The files of the tokenizer; none if the task has its own.
    pub language: Option<Language>,
    /// The policy folder that samples.
    pub policy: ArtifactDigest,
    /// The number format of its weights.
    pub precision: Precision,
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
    /// Whether the policy's adapter is merged into its base first.
    pub merge_adapter: bool,
}

/// Rewards and advantages of one shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, bincode::Encode)]
#[serde(deny_unknown_fields)]
pub struct RewardSpec {
    /// Version of the kind.
    pub version: u32,
    /// Numerics class.
    pub numerics: Numerics,
    /// The task, which determines the grader.
    pub task: Task,
    /// The files of the tokenizer; none if the task has its own.
    pub language: Option<Language>,
    /// The trajectories that are graded.
    pub trajectories: ArtifactDigest,
    /// The shard's first prompt, counted over the whole run.
    pub first_prompt: u64,
    /// Completions of a prompt.
    pub group: u32,
    /// The weights of a grade's parts, and the grader of a dataset task.
    pub reward: RewardConfig,
    /// How rewards become advantages.
    pub advantage: Advantage,
}

/// Accuracy of a policy on held-out problems.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, bincode::Encode)]
#[serde(deny_unknown_fields)]
pub struct EvaluationSpec {
    /// Version of the kind.
    pub version: u32,
    /// Numerics class.
    pub numerics: Numerics,
    /// Root of all draws.
    pub seed: Seed,
    /// Where the problems come from.
    pub task: Task,
    /// The files of the tokenizer; none if the task has its own.
    pub language: Option<Language>,
    /// The policy folder that is measured.
    pub policy: ArtifactDigest,
    /// The number format of its weights.
    pub precision: Precision,
    /// Held-out problems; of a shard, its own.
    pub problems: u32,
    /// Completions of a problem by a sampler with a temperature; greedy ones write one.
    pub samples: u32,
    /// Distinct states of a pass.
    pub micro_batch: u32,
    /// Each is measured by itself; the first gives `accuracy`.
    pub samplers: Vec<Sampler>,
    /// Whether the policy's adapter is merged into its base first.
    pub merge_adapter: bool,
    /// The grader of dataset tasks.
    #[serde(rename = "marking", default, skip_serializing_if = "Appended::is_none")]
    pub grading: Appended<RewardConfig>,
    /// Where a shard's problems are; none of an evaluation in one stage. Encoded in 8 bytes that end in a number above 0,
    /// as no grader is.
    #[serde(default, skip_serializing_if = "Appended::is_none")]
    pub shard: Appended<ProblemShard>,
}

/// The place of a shard's problems among those of the whole evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, bincode::Encode)]
#[serde(deny_unknown_fields)]
pub struct ProblemShard {
    /// Its first problem, counted from 0.
    pub first_problem: u32,
    /// Problems of the whole evaluation.
    pub all_problems: u32,
}

impl EvaluationSpec {
    /// One of the stages that share this evaluation's problems, counted from 0. They take them in order; the first
    /// `problems % shards` have one more than the others. `None` where there is no such shard.
    pub fn nth_shard(&self, number: u32, shards: u32) -> Option<Self> {
        let share =
            self.problems.checked_div(shards).filter(|_| number < shards.min(self.problems))?;
        let longer = self.problems % shards;
        let first_problem = number * share + number.min(longer);
        let shard = Appended(Some(ProblemShard { first_problem, all_problems: self.problems }));
        let problems = share + u32::from(number < longer);
        Some(Self { problems, shard, ..self.clone() })
    }
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
    /// All inner updates of an iteration.
    Updates(UpdatesSpec),
    /// Accuracy on held-out problems.
    Evaluation(EvaluationSpec),
}

/// Evaluates an expression on the spec of any kind of stage.
macro_rules! of_any {
    ($stage:expr, $spec:ident => $value:expr) => {
        match $stage {
            Self::Sft($spec) => $value,
            Self::Rollout($spec) => $value,
            Self::Reward($spec) => $value,
            Self::Gradient($spec) => $value,
            Self::Update($spec) => $value,
            Self::Updates($spec) => $value,
            Self::Evaluation($spec) => $value,
        }
    };
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
            Self::Updates(_) => StageKind::Updates,
            Self::Evaluation(_) => StageKind::Evaluation,
        }
    }

    /// The stage's name.
    pub fn digest(&self) -> StageDigest {
        StageDigest::of(self.kind().name(), &of_any!(self, spec => encode(spec)))
    }

    /// The numerics class that a worker must have.
    pub fn numerics(&self) -> Numerics {
        of_any!(self, spec => spec.numerics)
    }

    /// The version of the kind that the spec was made for.
    pub fn version(&self) -> u32 {
        of_any!(self, spec => spec.version)
    }

    /// The policy that an update, or all updates of an iteration, move; `None` of other stages.
    pub fn moved_policy(&self) -> Option<ArtifactDigest> {
        match self {
            Self::Update(spec) => Some(spec.policy),
            Self::Updates(spec) => Some(spec.policy),
            _ => None,
        }
    }

    /// Every artifact that the stage reads, with its role.
    pub fn inputs(&self) -> Vec<(&'static str, ArtifactDigest)> {
        let mut all = vec![];
        let (language, task, reward) = match self {
            Self::Sft(spec) => {
                if let SftStart::Continue { policy, optimizer } = spec.start {
                    all.extend([("policy", policy), ("optimizer", optimizer)]);
                }
                (None, Some(&spec.task), None)
            }
            Self::Rollout(spec) => {
                all.push(("policy", spec.policy));
                (spec.language, Some(&spec.task), None)
            }
            Self::Reward(spec) => {
                all.push(("trajectories", spec.trajectories));
                (spec.language, Some(&spec.task), Some(&spec.reward))
            }
            Self::Gradient(spec) => {
                all.push(("policy", spec.policy));
                all.push(("trajectories", spec.trajectories));
                all.push(("rewards", spec.rewards));
                all.push(("behaviour", spec.behaviour));
                all.extend(spec.reference.map(|base| ("reference", base)));
                (None, None, None)
            }
            Self::Update(spec) => {
                all.push(("policy", spec.policy));
                all.extend(spec.optimizer_state.map(|state| ("optimizer", state)));
                all.extend(spec.gradients.iter().map(|&gradient| ("gradient", gradient)));
                (None, None, None)
            }
            Self::Updates(spec) => {
                all.push(("policy", spec.policy));
                all.extend(spec.optimizer_state.map(|state| ("optimizer", state)));
                for ShardSpec { trajectories, rewards } in &spec.shards {
                    all.extend([("trajectories", *trajectories), ("rewards", *rewards)]);
                }
                all.extend(spec.reference.map(|base| ("reference", base)));
                (None, None, None)
            }
            Self::Evaluation(spec) => {
                all.push(("policy", spec.policy));
                (spec.language, Some(&spec.task), spec.grading.0.as_ref())
            }
        };
        let files = |of: Language| [("config", of.config), ("tokenizer", of.tokenizer)];
        all.extend(language.into_iter().flat_map(files));
        all.extend(task.into_iter().flat_map(Task::datasets));
        all.extend(
            reward.into_iter().flat_map(|of| of.files.values().map(|&file| ("program", file))),
        );
        all
    }
}
