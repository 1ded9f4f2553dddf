//! A shard sampled and graded from a policy in memory, by the code of the rollout and reward stages.
//!
//! For measurements outside of a run: reads no artifact of it, makes none, and checks no numerics class.

use std::sync::Arc;

use agrpo_spec::{Advantage, Inputs, RewardConfig, Rewards, RolloutSpec, Scorer};

use crate::error::Result;
use crate::problems::{Grader, ProblemCache, Problems};
use crate::{model::Policy, reward, rollout, threads::Threads, trajectories::Trajectories};

/// The prompts of a rollout, ready to be sampled.
#[derive(Debug)]
pub struct Shard<'a> {
    spec: &'a RolloutSpec,
    inputs: &'a Inputs,
    problems: Arc<Problems>,
}

impl<'a> Shard<'a> {
    /// Reads the task's problems; `inputs` hold the files that they come from.
    pub fn open(spec: &'a RolloutSpec, inputs: &'a Inputs) -> Result<Self> {
        let problems = ProblemCache::default().problems(&spec.task, spec.language, inputs)?;
        Ok(Self { spec, inputs, problems })
    }

    /// Samples the shard from a policy, which need not be the spec's.
    pub fn sample(&self, policy: &Policy, threads: &Threads) -> Result<Trajectories> {
        rollout::shard(self.spec, policy, &self.problems, threads)
    }

    /// Grades what was sampled.
    pub fn grade(
        &self,
        trajectories: &Trajectories,
        (config, advantage): (&RewardConfig, &Advantage),
        scorer: &dyn Scorer,
    ) -> Result<Rewards> {
        let grader = Grader::open(config, self.inputs, scorer)?;
        let from = (self.spec.first_prompt, self.spec.group);
        reward::grade(trajectories, from, advantage, &self.problems, &grader)
    }
}
