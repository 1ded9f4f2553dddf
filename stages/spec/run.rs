//! Run files: what a person may ask for, and the checks that a request must pass.
//!
//! [`RunConfig`] is the file as written; [`Run`] is the same with every default explicit and every
//! combination checked. Only [`Run::parse`] makes a `Run`, so whoever holds one holds a sane one.
//! A run names no path, host, time or number of workers: those never change a result.

use serde::{Deserialize, Serialize};

use crate::digest::{Real, RunId, encode};
use crate::seed::Seed;
use crate::{one_line, shown};

pub use base::{Base, CheckpointConfig, CheckpointShape, Language, Precision};
pub use decoding::{Cache, SamplerKeys};
pub use estimator::{EstimatorConfig, EstimatorKind, Horizon, Samples, StepWeights, Strata};
pub use fit::Misfit;
pub use learning::{Advantage, AdvantageScale};
pub use lora::LoraConfig;
pub use numerics::{Numerics, ParseNumericsError};
pub use retention::{Keep, Retention};
pub use reward::{Marking, Program, RewardConfig, Rule};
pub use slips::without_slips;
pub use sources::{CHECKPOINT, Source, sources, with_digests};
pub use task::{Benchmark, BenchmarkTask, CountdownTask, DatasetTask, Protocol, SudokuTask, Task};

/// Characters of what would be accepted, which may list names from the file.
const EXPECTED: usize = 600;

/// Why a run file was refused. `Display` is one line: key, value, what was expected.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RunError {
    /// Not TOML, an unknown key, or a value of the wrong type.
    #[error("{0}")]
    Syntax(String),
    /// A value, or a combination of values, that cannot be run.
    #[error("{key} = {}: {}", one_line(.found), shown(.expected, EXPECTED))]
    Value {
        /// The key, with its section, as in `rollout.group`.
        key: &'static str,
        /// The value as written.
        found: String,
        /// What would be accepted.
        expected: String,
    },
}

/// LLaDA's architecture at any size. The vocabulary follows from the task's tokenizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, bincode::Encode)]
#[serde(deny_unknown_fields)]
pub struct ModelShape {
    /// Width of the residual stream.
    pub d_model: u32,
    /// Transformer blocks.
    pub n_layers: u32,
    /// Attention heads; must divide `d_model` into even head sizes.
    pub n_heads: u32,
    /// Width inside the SwiGLU.
    pub mlp_hidden_size: u32,
    /// Base of the rotary embedding's wavelengths.
    #[serde(default = "defaults::rope_theta")]
    pub rope_theta: Real,
    /// Added to the mean square in RMSNorm.
    #[serde(default = "defaults::norm_eps")]
    pub rms_norm_eps: Real,
    /// Standard deviation of the initial weights.
    #[serde(default = "defaults::init_std")]
    pub init_std: Real,
}

/// How a learning rate moves after its warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, bincode::Encode)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Stays.
    Constant,
    /// Falls to `final_ratio` of itself along half a cosine.
    #[default]
    Cosine,
}

/// AdamW with a global gradient-norm clip (Loshchilov and Hutter, arXiv 1711.05101).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, bincode::Encode)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Learning rate at the end of the warm-up.
    pub learning_rate: Real,
    /// Decay of the first moment.
    #[serde(default = "defaults::beta1")]
    pub beta1: Real,
    /// Decay of the second moment.
    #[serde(default = "defaults::beta2")]
    pub beta2: Real,
    /// Added to the root of the second moment.
    #[serde(default = "defaults::adam_eps")]
    pub eps: Real,
    /// Decoupled weight decay, times the learning rate each step; norms are exempt.
    #[serde(default = "defaults::weight_decay")]
    pub weight_decay: Real,
    /// Largest global gradient norm.
    #[serde(default = "defaults::one")]
    pub max_grad_norm: Real,
    /// Linear warm-up: `[sft.optimizer]` counts steps; `[optimizer]` iterations, whose inner updates
    /// share a learning rate.
    #[serde(default)]
    pub warmup: u32,
    /// After the warm-up.
    #[serde(default)]
    pub schedule: Schedule,
    /// Where the cosine ends, as a share of `learning_rate`.
    #[serde(default = "defaults::zero")]
    pub final_ratio: Real,
}

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
    /// The last of the steps, whose demonstrator is careless: right on easy problems, mostly wrong on
    /// hard ones. It makes a base that knows more than it shows.
    #[serde(default)]
    pub careless_steps: u32,
    /// Share of the hard problems that the careless demonstrator answers wrongly.
    #[serde(default = "defaults::most")]
    pub careless_share: Real,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
}

/// Which masked positions a step unmasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, bincode::Encode)]
#[serde(rename_all = "kebab-case")]
pub enum PositionRule {
    /// Uniformly random ones.
    Random,
    /// Those whose drawn token has the highest probability.
    LowConfidence,
    /// Those whose distribution has the lowest entropy.
    Entropy,
}

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
    #[serde(default = "defaults::random_position")]
    pub position: PositionRule,
    /// Keys and values that the passes of a block take over from its first.
    #[serde(default)]
    pub cache: Cache,
    /// A step also writes every token that is at least so probable; none writes as `steps` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<Real>,
}

/// The length of the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, bincode::Encode)]
#[serde(deny_unknown_fields)]
pub struct TrainingConfig {
    /// Policy updates.
    pub iterations: u32,
}

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
    #[serde(default = "defaults::low_confidence")]
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

/// A run file, with its defaults filled in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, bincode::Encode)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// For people; part of the run's identity. 1 to 64 letters, digits, `-`, `_` or `.`; of a run file, not
    /// `-` first, which commands would take for an option, and not dots alone, which are folders.
    pub name: String,
    /// Root of all randomness of the run.
    pub seed: u64,
    /// How far results are equal to the bit.
    #[serde(default)]
    pub numerics: Numerics,
    /// What is learned.
    pub task: Task,
    /// The policy's shape, where the run makes its own; goes with `sft`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelShape>,
    /// How the run makes its base, before reinforcement learning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sft: Option<SftConfig>,
    /// The base, where it comes from elsewhere; in place of `model` and `sft`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointConfig>,
    /// How trajectories are sampled.
    pub rollout: RolloutConfig,
    /// What a completion is worth.
    #[serde(default)]
    pub reward: RewardConfig,
    /// From rewards to advantages.
    #[serde(default)]
    pub advantage: Advantage,
    /// The policy gradient.
    pub estimator: EstimatorConfig,
    /// The policy's optimizer.
    pub optimizer: OptimizerConfig,
    /// What is trained instead of all weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
    /// The length of the run.
    pub training: TrainingConfig,
    /// How progress is measured.
    pub evaluation: EvaluationConfig,
    /// What is kept; no part of the run's identity nor of its record.
    #[serde(default, skip_serializing)]
    pub retention: Retention,
}

/// A run that has passed every check.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    config: RunConfig,
    base: Base,
    id: RunId,
}

impl RunConfig {
    /// Whether whoever samples merges the adapter first.
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
}

/// Whether a completion can be unmasked in so many steps: they share out evenly over the blocks, and the
/// tokens over them.
pub fn allows_steps(completion_tokens: u32, block_tokens: u32, steps: u32) -> bool {
    let blocks = completion_tokens / block_tokens;
    steps >= 1 && steps.is_multiple_of(blocks) && completion_tokens.is_multiple_of(steps)
}

impl Run {
    /// Reads a run file.
    pub fn parse(text: &str) -> Result<Self, RunError> {
        check_length(text)?;
        let config: RunConfig =
            toml::from_str(text).map_err(|error| RunError::Syntax(slips::told(&error, text)))?;
        checks::name(&config.name)?;
        Self::resolve(config)
    }

    /// Checks a configuration, wherever it came from.
    pub fn resolve(config: RunConfig) -> Result<Self, RunError> {
        let base = crate::run::checks::check(&config)?;
        let id = RunId::of(&encode(&config));
        Ok(Self { config, base, id })
    }

    /// The request, every default explicit.
    pub fn config(&self) -> &RunConfig {
        &self.config
    }

    /// What reinforcement learning starts from.
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// The run's name.
    pub fn id(&self) -> RunId {
        self.id
    }

    /// Root of all randomness of the run.
    pub fn seed(&self) -> Seed {
        Seed::new(self.config.seed)
    }

    /// Stages of supervised fine-tuning; none where the base is a checkpoint.
    pub fn sft_chunks(&self) -> u32 {
        match &self.base {
            Base::Scratch(_, sft) => sft.steps.div_ceil(sft.steps_per_stage),
            Base::Checkpoint(_) => 0,
        }
    }

    /// Whether the policy after this many updates is evaluated.
    pub fn is_evaluated(&self, iteration: u32) -> bool {
        iteration.is_multiple_of(self.config.evaluation.every)
            || iteration == self.config.training.iterations
    }
}

/// Bytes of the longest run file; ours have a few thousand. The readers of TOML take a few hundred times
/// as much memory as what they read.
const LONGEST: usize = 1 << 20;

fn check_length(text: &str) -> Result<(), RunError> {
    match text.len() {
        length if length > LONGEST => Err(RunError::Syntax(format!(
            "{length} bytes, expected at most {LONGEST}: this is no run file"
        ))),
        _ => Ok(()),
    }
}

mod base;
mod checks;
mod decoding;
mod defaults;
mod estimator;
mod fit;
mod learning;
mod lora;
mod numerics;
mod retention;
mod reward;
mod slips;
mod sources;
mod task;
