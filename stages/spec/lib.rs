//! Run files, plans and stage specs, and the digests that name their results.
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
mod family;
mod json;
mod manifest;
pub mod memory;
mod message;
mod names;
mod plan;
pub mod record;
mod results;
mod run;
mod scorer;
mod seed;
mod stage;
mod text;

pub use artifact::{Artifact, ExecuteFn, FolderListing, Inputs, OutputRecord, Outputs, StageError};
pub use content::{Content, Files, LARGE, WINDOW, Windows, lfs_pointer};
pub use cost::{By, Chain, Choice, Machine, Places, Rates, StageCost, TimePart};
pub use digest::{
    Appended, ArtifactDigest, DigestStream, ParseDigestError, Real, RunId, StageDigest, decode,
    encode,
};
pub use family::{
    AttendsTo, BlocksFrom, ChatLayout, ConfigKeys, Conventions, EndsAfter, ExpertNames, Family,
    FamilyTraits, Predicts, Spread, TensorNames, ThresholdRule,
};
pub use json::{is_out_of_range, json_reason};
pub use manifest::{Environment, Manifest, Phases};
pub use message::Message;
pub use plan::{Checkpoint, ParseKeyError, Plan, PlanError, StageKey};
pub use results::{
    Evaluation, EvaluationResult, EvaluationSample, EvaluationShards, Partial, Points, Rewards,
    RowReward, Together, metrics, trajectories,
};
pub use run::*;
pub use scorer::{Sample, Score, Scorer};
pub use seed::{Purpose, Seed};
pub use stage::{
    EvaluationSpec, GradientSpec, ProblemShard, RewardSpec, RolloutSpec, SftSpec, SftStart,
    ShardSpec, StageKind, StageSpec, UpdateSpec, UpdatesSpec,
};
pub use text::{excerpt, one_line, shown, suggestion, utf_8};
