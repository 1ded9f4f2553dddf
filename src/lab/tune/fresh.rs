//! A fresh batch to measure on: the prompts that a run would take next, sampled and graded as its stages would.
//!
//! Nothing is stored, and nothing of a run changes by it.

use agrpo_compute::estimator::Worth;
use agrpo_compute::{Shard, Threads, model::Policy, trajectories::Trajectories};
use agrpo_spec::{
    Advantage, ArtifactDigest, Inputs, Plan, Purpose, RewardConfig, Rewards, RolloutSpec, Run,
    Scorer, StageError, StageKey, StageKind,
};

use crate::timed;

/// Prompts of a batch, unless more or fewer are asked for.
const PROMPTS: u32 = 8;

/// Trajectories of a policy and their rewards.
#[derive(Debug)]
pub struct Fresh {
    /// The samples.
    pub trajectories: Trajectories,
    /// Their rewards.
    pub rewards: Rewards,
    /// Seconds that sampling took.
    pub seconds: f64,
}

impl Fresh {
    /// Samples a shard from the policy and grades it; `inputs` hold the files that the task's problems come from.
    pub fn sample(
        spec: &RolloutSpec,
        worth: (&RewardConfig, &Advantage),
        (policy, threads): (&Policy, &Threads),
        (inputs, scorer): (&Inputs, &dyn Scorer),
        clock: &dyn Fn() -> f64,
    ) -> Result<Self, StageError> {
        let shard = Shard::open(spec, inputs)?;
        let (trajectories, seconds) = timed(clock, || shard.sample(policy, threads))?;
        Ok(Self { rewards: shard.grade(&trajectories, worth, scorer)?, trajectories, seconds })
    }

    /// The worths of its completions to an estimator.
    pub fn worths(&self) -> Vec<Worth> {
        self.rewards.rows.iter().map(Worth::from).collect()
    }
}

/// The rollout of a batch: the prompts that the run would take after this policy, with other draws than its own.
pub fn batch(
    run: &Run,
    (iteration, policy): (u32, ArtifactDigest),
    prompts: Option<u32>,
    seed: u64,
) -> RolloutSpec {
    let next = Plan::rollout_of(run, StageKey::new(StageKind::Rollout, iteration + 1, 0), policy);
    RolloutSpec {
        seed: run.seed().child(Purpose::Tuning, seed),
        prompts: prompts.unwrap_or(next.prompts.clamp(2, PROMPTS)),
        // Learner and sampler are one policy here.
        merge_adapter: false,
        ..next
    }
}
