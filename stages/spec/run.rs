//! Run files: what a person may ask for, and the checks that a request must pass.
//!
//! [`RunConfig`] is the file as written; [`Run`] is the same with every default explicit and every
//! combination checked. Only [`Run::parse`] and [`Run::resolve`] make a `Run`, so every `Run` is valid.
//! A run names no path, host, time or number of workers: those never change a result.

mod base;
mod checked;
mod checks;
mod compatibility;
mod config;
mod defaults;
mod error;
mod estimator;
mod grid;
mod kind;
mod learning;
mod numerics;
mod reader;
mod retention;
mod reward;
mod sampling;
mod sources;
mod task;

pub(crate) use base::FamilyShape;
pub use base::{
    Base, CheckpointConfig, CheckpointShape, Language, ModelShape, Precision, SftConfig,
};
pub use checked::Run;
pub use config::{RunConfig, TrainingConfig};
pub use error::RunError;
pub use estimator::{
    Checkpointing, EstimatorConfig, Horizon, Samples, StepEvery, StepWeights, Strata,
};
pub use grid::{GridCell, ParseGridError};
pub use kind::{EstimatorKind, TokenMean};
pub use learning::{Advantage, AdvantageScale, Baseline, LoraConfig, OptimizerConfig, Schedule};
pub use numerics::{Numerics, ParseNumericsError};
pub use reader::toml_reason;
pub use retention::{Keep, Retention};
pub use reward::{PROGRAM_PART, Program, RewardConfig, Rule, is_part_name};
pub use sampling::{
    Cache, Confidence, EvaluationConfig, PositionRule, RolloutConfig, Sampler, allows_steps,
};
pub use sources::{CHECKPOINT, Source, sources, with_digests};
pub use task::{Benchmark, BenchmarkTask, CountdownTask, DatasetTask, Protocol, SudokuTask, Task};
