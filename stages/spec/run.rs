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
mod evaluation;
mod learning;
mod lora;
mod numerics;
mod optimizer;
mod reader;
mod retention;
mod reward;
mod rollout;
mod sampler;
mod sft;
mod sources;
mod suggestions;
mod task;

pub use base::{Base, CheckpointConfig, CheckpointShape, Language, ModelShape, Precision};
pub use checked::Run;
pub use compatibility::{Incompatible, SamplerKeys};
pub use config::{RunConfig, TrainingConfig};
pub use error::RunError;
pub use estimator::{EstimatorConfig, EstimatorKind, Horizon, Samples, StepWeights, Strata};
pub use evaluation::EvaluationConfig;
pub use learning::{Advantage, AdvantageScale};
pub use lora::LoraConfig;
pub use numerics::{Numerics, ParseNumericsError};
pub use optimizer::{OptimizerConfig, Schedule};
pub use retention::{Keep, Retention};
pub use reward::{Marking, Program, RewardConfig, Rule};
pub use rollout::{RolloutConfig, allows_steps};
pub use sampler::{Cache, PositionRule, Sampler};
pub use sft::SftConfig;
pub use sources::{CHECKPOINT, Source, sources, with_digests};
pub use suggestions::with_suggestion;
pub use task::{Benchmark, BenchmarkTask, CountdownTask, DatasetTask, Protocol, SudokuTask, Task};
