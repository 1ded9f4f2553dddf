//! A shard sampled and graded from a policy in memory, by the code of the rollout and reward stages.
//!
//! For measurements outside of a run: reads no artifact of it, makes none, and checks no numerics class.

use agrpo_spec::{
    Advantage, ArtifactDigest, Inputs, RewardConfig, RewardSpec, Rewards, RolloutSpec, Scorer,
    StageError, StageKind,
};

use crate::model::Policy;
use crate::problems::{Grader, Problems};
use crate::reward;
use crate::rollout;
use crate::trajectories::Trajectories;

/// The prompts of a rollout, ready to be sampled.
#[derive(Debug)]
pub struct Shard<'a> {
    spec: &'a RolloutSpec,
    inputs: &'a Inputs,
    problems: Problems,
}

impl<'a> Shard<'a> {
    /// Reads the task's problems; `inputs` hold the files that they come from.
    pub fn open(spec: &'a RolloutSpec, inputs: &'a Inputs) -> Result<Self, StageError> {
        let problems = Problems::open(&spec.task, spec.language, inputs)?;
        Ok(Self { spec, inputs, problems })
    }

    /// Samples the shard from a policy, which need not be the spec's.
    pub fn sample(&self, policy: &Policy) -> Result<Trajectories, StageError> {
        rollout::shard(self.spec, policy, &self.problems)
    }

    /// Grades what was sampled.
    pub fn grade(
        &self,
        trajectories: &Trajectories,
        (reward, advantage): (&RewardConfig, &Advantage),
        scorer: &dyn Scorer,
    ) -> Result<Rewards, StageError> {
        let spec = RewardSpec {
            version: StageKind::Reward.version(),
            numerics: self.spec.numerics,
            task: self.spec.task.clone(),
            language: self.spec.language,
            first_prompt: self.spec.first_prompt,
            trajectories: ArtifactDigest::of(&trajectories.to_bytes()?),
            group: self.spec.group,
            reward: reward.clone(),
            advantage: advantage.clone(),
        };
        let grader = Grader::open(&spec.reward, self.inputs, scorer)?;
        reward::grade(&spec, trajectories, &self.problems, &grader)
    }
}
