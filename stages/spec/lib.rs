//! What a run asks for, and the name of every answer.
//!
//! A run file becomes a [`Run`] (every default explicit, validated); a run becomes, stage by stage,
//! [`StageSpec`]s; a spec's canonical bytes become its [`StageDigest`], the name of its result.
//!
//! This crate is pure: it opens no file, reads no clock and no environment, draws no randomness that
//! is not a function of a [`Seed`], and knows neither tensors nor queues.

mod artifact;
mod content;
mod digest;
mod manifest;
mod plan;
mod run;
mod seed;
mod stage;

pub use artifact::{Artifact, ExecuteFn, FolderEntry, FolderListing, Inputs, Outputs, StageError};
pub use content::{Content, Files, WINDOW, Windows};
pub use digest::{
    ArtifactDigest, DigestStream, ParseDigestError, Real, RunId, StageDigest, decode, encode,
};
pub use manifest::{Environment, Manifest, ManifestError, OutputRecord, Phases};
pub use plan::{Checkpoint, Plan, PlanError, StageKey};
pub use run::{
    Advantage, AdvantageScale, Cache, CountdownTask, EstimatorConfig, EstimatorKind,
    EvaluationConfig, Horizon, Misfit, ModelShape, Numerics, OptimizerConfig, PositionRule,
    RewardConfig, RolloutConfig, Run, RunConfig, RunError, SamplerKeys, Samples, Schedule,
    SftConfig, StepWeights, Strata, SudokuTask, Task, TrainingConfig,
};
pub use seed::{Purpose, Seed};
pub use stage::{
    EvaluationSpec, GradientSpec, RewardSpec, RolloutSpec, Sampler, SftSpec, SftStart, StageKind,
    StageSpec, UpdateSpec,
};
