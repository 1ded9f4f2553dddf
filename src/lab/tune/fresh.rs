//! A fresh batch to measure on: the prompts that a run would take next, sampled and graded as its stages would.
//!
//! Nothing is stored, and nothing of a run changes by it.

use agrpo_compute::Shard;
use agrpo_compute::estimator::Worth;
use agrpo_compute::model::Policy;
use agrpo_compute::trajectories::Trajectories;
use agrpo_spec::{
    Advantage, ArtifactDigest, Inputs, Purpose, RewardConfig, Rewards, RolloutSpec, Run, Sampler,
    Scorer, StageError, StageKind,
};

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
        policy: &Policy,
        (inputs, scorer): (&Inputs, &dyn Scorer),
        clock: &dyn Fn() -> f64,
    ) -> Result<Self, StageError> {
        let shard = Shard::open(spec, inputs)?;
        let start = clock();
        let trajectories = shard.sample(policy)?;
        let seconds = clock() - start;
        let rewards = shard.grade(&trajectories, worth, scorer)?;
        Ok(Self { trajectories, rewards, seconds })
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
    let config = run.config();
    let of_shard = config.rollout.prompts / config.rollout.shards;
    RolloutSpec {
        version: StageKind::Rollout.version(),
        numerics: config.numerics,
        seed: run.seed().child(Purpose::Tuning, seed),
        task: config.task.clone(),
        language: run.base().language(),
        policy,
        precision: run.base().precision(),
        iteration: iteration + 1,
        first_prompt: u64::from(iteration) * u64::from(config.rollout.prompts),
        prompts: prompts.unwrap_or(of_shard.clamp(2, PROMPTS)),
        group: config.rollout.group,
        micro_batch: config.rollout.micro_batch,
        sampler: Sampler::from(&config.rollout),
        // Learner and sampler are one policy here.
        merge_adapter: false,
    }
}
