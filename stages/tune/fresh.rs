//! A fresh batch to measure on: sampled and graded by the code of the rollout and reward stages.
//!
//! Nothing is stored, and nothing of a run changes by it.

use agrpo_spec::{
    Advantage, ArtifactDigest, Inputs, RewardConfig, RewardSpec, Rewards, RolloutSpec, Scorer,
    StageError, StageKind,
};

use crate::estimator::Worth;
use crate::model::Policy;
use crate::problems::{Grader, Problems};
use crate::reward;
use crate::rollout;
use crate::trajectories::Trajectories;

/// Trajectories of a policy and what they are worth.
#[derive(Debug)]
pub struct Fresh {
    /// What was sampled.
    pub trajectories: Trajectories,
    /// What it earned.
    pub rewards: Rewards,
    /// How long sampling took.
    pub seconds: f64,
}

impl Fresh {
    /// Samples a shard from the policy and grades it; `inputs` hold what the task's problems come from.
    pub fn sample(
        spec: &RolloutSpec,
        (reward, advantage): (&RewardConfig, &Advantage),
        policy: &Policy,
        (inputs, scorer): (&Inputs, &dyn Scorer),
        clock: &dyn Fn() -> f64,
    ) -> Result<Self, StageError> {
        let problems = Problems::open(&spec.task, spec.language, inputs)?;
        let start = clock();
        let trajectories = rollout::shard(spec, policy, &problems)?;
        let seconds = clock() - start;
        let spec = RewardSpec {
            version: StageKind::Reward.version(),
            numerics: spec.numerics,
            task: spec.task.clone(),
            language: spec.language,
            first_prompt: spec.first_prompt,
            trajectories: ArtifactDigest::of(&trajectories.to_bytes()?),
            group: spec.group,
            reward: reward.clone(),
            advantage: advantage.clone(),
        };
        let grader = Grader::open(&spec.reward, inputs, scorer)?;
        let rewards = reward::grade(&spec, &trajectories, &problems, &grader)?;
        Ok(Self { trajectories, rewards, seconds })
    }

    /// What estimators are told.
    pub fn worths(&self) -> Vec<Worth> {
        self.rewards.rows.iter().map(reward::worth_of).collect()
    }
}
