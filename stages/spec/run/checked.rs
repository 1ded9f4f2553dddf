//! A run that has passed every check: the only way to one is [`Run::parse`] or [`Run::resolve`].

use super::reader::{config_of, read_config};
use super::{base::Base, checks, config::RunConfig, error::RunError};
use crate::digest::{RunId, encode};
use crate::seed::Seed;

/// A run that has passed every check.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    config: RunConfig,
    base: Base,
    id: RunId,
}

impl Run {
    /// Reads a run file.
    pub fn parse(text: &str) -> Result<Self, RunError> {
        Self::new(read_config(text)?)
    }

    /// Reads a run file that is a table already, such as one with changes to a file.
    pub fn from_table(table: toml::Table) -> Result<Self, RunError> {
        Self::new(config_of(table)?)
    }

    fn new(config: RunConfig) -> Result<Self, RunError> {
        checks::new_run(&config)?;
        Self::resolve(config)
    }

    /// Checks a configuration, wherever it came from.
    pub fn resolve(config: RunConfig) -> Result<Self, RunError> {
        let base = checks::check(&config)?;
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
