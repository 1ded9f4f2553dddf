//! What a run asks for, and the name of every answer.
//!
//! A run file becomes a [`Run`] (every default explicit, validated); a run becomes, stage by stage,
//! [`StageSpec`]s; a spec's canonical bytes become its [`StageDigest`], the name of its result.
//!
//! This crate is pure: it opens no file, reads no clock and no environment, draws no randomness that
//! is not a function of a [`Seed`], and knows neither tensors nor queues.

mod artifact;
mod content;
mod cost;
mod digest;
mod manifest;
pub mod memory;
mod nearest;
mod plan;
pub mod record;
mod rewards;
mod run;
mod scorer;
mod seed;
mod shown;
mod stage;
mod utf_8;

pub use artifact::{Artifact, ExecuteFn, FolderEntry, FolderListing, Inputs, Outputs, StageError};
pub use content::{Content, Files, LARGE, WINDOW, Windows, lfs_pointer};
pub use cost::StageCost;
pub use digest::{
    ArtifactDigest, DigestStream, ParseDigestError, Real, RunId, StageDigest, decode, encode,
};
pub use manifest::{Environment, Manifest, OutputRecord, Phases};
pub use nearest::nearest;
pub use plan::{Checkpoint, Plan, PlanError, StageKey};
pub use rewards::{Rewards, RowReward};
pub use run::{
    Advantage, AdvantageScale, Base, Benchmark, BenchmarkTask, CHECKPOINT, Cache, CheckpointConfig,
    CheckpointShape, CountdownTask, DatasetTask, EstimatorConfig, EstimatorKind, EvaluationConfig,
    Horizon, Keep, Language, LoraConfig, Marking, Misfit, ModelShape, Numerics, OptimizerConfig,
    ParseNumericsError, PositionRule, Precision, Program, Protocol, Retention, RewardConfig,
    RolloutConfig, Rule, Run, RunConfig, RunError, SamplerKeys, Samples, Schedule, SftConfig,
    Source, StepWeights, Strata, SudokuTask, Task, TrainingConfig, allows_steps, sources,
    with_digests, without_slips,
};
pub use scorer::{Sample, Score, Scorer};
pub use seed::{Purpose, Seed};
pub use shown::{one_line, shown};
pub use stage::{
    EvaluationSpec, GradientSpec, RewardSpec, RolloutSpec, Sampler, SftSpec, SftStart, StageKind,
    StageSpec, UpdateSpec,
};
pub use utf_8::utf_8;
