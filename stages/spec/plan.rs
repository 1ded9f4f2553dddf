//! What comes next: from a run and the results so far to the stages that can be computed now.
//!
//! ```text
//! sft(0) -> ... -> sft(n) -> for i in 1..=iterations:
//!     rollout(i,s) -> reward(i,s) -> gradient(i,s)   for every shard s
//!     update(i) joins the gradients in the order of shards
//! evaluation(i) hangs off the policy after update i; evaluation(0) off the base
//! ```
//!
//! Pure: told of a finished stage, it answers with the stages that became ready, in time that does
//! not depend on the run's length. It never asks whether anything is already computed: its caller
//! does, and a plan that is told of old results walks through them in the same way.

use std::collections::BTreeMap;

use crate::digest::{ArtifactDigest, Real};
use crate::run::Run;
use crate::stage::{
    EvaluationSpec, GradientSpec, RewardSpec, RolloutSpec, Sampler, SftSpec, SftStart, StageKind,
    StageSpec, UpdateSpec,
};

mod key;

pub use key::StageKey;

/// A plan that was told something that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The text names no stage of a run.
    #[error("{0:?} names no stage of a run")]
    Key(String),
    /// The stage was not pending.
    #[error("{0} is not pending")]
    NotPending(StageKey),
    /// The result lacks an output that the next stage needs.
    #[error("{key} has no output {output:?}")]
    MissingOutput {
        /// The finished stage.
        key: StageKey,
        /// The output's name.
        output: &'static str,
    },
}

/// Where a run stands after an update: enough to go on without walking the chain from its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Updates done; at least 1.
    pub iteration: u32,
    /// The policy after them.
    pub policy: ArtifactDigest,
    /// The optimizer's state after them.
    pub optimizer: ArtifactDigest,
}

/// The state of a run's plan: what is pending, and what the next join waits for.
#[derive(Clone, Debug)]
pub struct Plan {
    run: Run,
    pending: BTreeMap<StageKey, StageSpec>,
    iteration: u32,
    policy: Option<ArtifactDigest>,
    optimizer_state: Option<ArtifactDigest>,
    trajectories: Vec<Option<ArtifactDigest>>,
    gradients: Vec<Option<ArtifactDigest>>,
}

impl Plan {
    /// A run that has not begun: its first sft chunk is pending.
    pub fn new(run: Run) -> Self {
        let mut plan = Self::empty(run);
        let start = SftStart::Scratch(plan.run.config().model.clone());
        plan.push_sft(0, start);
        plan
    }

    /// A run that stands at a checkpoint. `evaluations` are those of earlier policies (by iteration,
    /// 0 for the base) that have no result yet.
    pub fn resume(
        run: Run,
        at: &Checkpoint,
        evaluations: impl IntoIterator<Item = (u32, ArtifactDigest)>,
    ) -> Self {
        let mut plan = Self::empty(run);
        for (iteration, policy) in evaluations {
            plan.push_evaluation(iteration, policy);
        }
        plan.optimizer_state = Some(at.optimizer);
        plan.begin_after(at.iteration, at.policy);
        plan
    }

    fn empty(run: Run) -> Self {
        Self {
            run,
            pending: BTreeMap::new(),
            iteration: 0,
            policy: None,
            optimizer_state: None,
            trajectories: vec![],
            gradients: vec![],
        }
    }

    /// The run.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// The stages that can be computed now, in the order in which they are best begun.
    pub fn pending(&self) -> &BTreeMap<StageKey, StageSpec> {
        &self.pending
    }

    /// Whether nothing is left to do.
    pub fn is_done(&self) -> bool {
        self.pending.is_empty()
    }

    /// Updates done so far.
    pub fn iteration(&self) -> u32 {
        self.iteration
    }

    /// The newest policy, once there is one.
    pub fn policy(&self) -> Option<ArtifactDigest> {
        self.policy
    }

    /// All stages of the run, done or not.
    pub fn total_stages(run: &Run) -> u64 {
        let config = run.config();
        let chunks = u64::from(config.sft.steps.div_ceil(config.sft.steps_per_stage));
        let iterations = u64::from(config.training.iterations);
        let every = u64::from(config.evaluation.every);
        let evaluations = 1 + iterations.div_ceil(every);
        chunks + iterations * (3 * u64::from(config.rollout.shards) + 1) + evaluations
    }

    /// Records a stage's result; answers with the stages that became ready.
    ///
    /// `output` gives the digest of an output of the finished stage by its name.
    pub fn finished(
        &mut self,
        key: StageKey,
        output: impl Fn(&str) -> Option<ArtifactDigest>,
    ) -> Result<Vec<StageKey>, PlanError> {
        if !self.pending.contains_key(&key) {
            return Err(PlanError::NotPending(key));
        }
        let need =
            |name: &'static str| output(name).ok_or(PlanError::MissingOutput { key, output: name });
        let ready = match key.kind {
            StageKind::Sft => {
                let (policy, optimizer) = (need("policy")?, need("optimizer")?);
                self.after_sft(key.iteration, policy, optimizer)
            }
            StageKind::Rollout => self.after_rollout(key.shard, need("trajectories")?),
            StageKind::Reward => self.after_reward(key.shard, need("rewards")?),
            StageKind::Gradient => self.after_gradient(key.shard, need("gradient")?),
            StageKind::Update => {
                self.optimizer_state = Some(need("optimizer")?);
                self.begin_after(key.iteration, need("policy")?)
            }
            StageKind::Evaluation => vec![],
        };
        self.pending.remove(&key);
        Ok(ready)
    }

    fn after_sft(
        &mut self,
        chunk: u32,
        policy: ArtifactDigest,
        optimizer: ArtifactDigest,
    ) -> Vec<StageKey> {
        let sft = &self.run.config().sft;
        if (chunk + 1) * sft.steps_per_stage < sft.steps {
            vec![self.push_sft(chunk + 1, SftStart::Continue { policy, optimizer })]
        } else {
            // Reinforcement learning begins with a fresh optimizer.
            self.begin_after(0, policy)
        }
    }

    /// The policy after `iteration` updates is known: evaluate it, and sample from it.
    fn begin_after(&mut self, iteration: u32, policy: ArtifactDigest) -> Vec<StageKey> {
        self.iteration = iteration;
        self.policy = Some(policy);
        let mut ready = vec![];
        if iteration < self.run.config().training.iterations {
            let shards = self.run.config().rollout.shards;
            self.trajectories = vec![None; shards as usize];
            self.gradients = vec![None; shards as usize];
            ready.extend((0..shards).map(|shard| self.push_rollout(iteration + 1, shard, policy)));
        }
        if self.run.is_evaluated(iteration) {
            ready.push(self.push_evaluation(iteration, policy));
        }
        ready
    }

    fn after_rollout(&mut self, shard: u32, trajectories: ArtifactDigest) -> Vec<StageKey> {
        self.trajectories[shard as usize] = Some(trajectories);
        let config = self.run.config();
        let spec = StageSpec::Reward(RewardSpec {
            version: StageKind::Reward.version(),
            numerics: config.numerics,
            task: config.task.clone(),
            trajectories,
            group: config.rollout.group,
            advantage_scale: config.advantage.scale,
        });
        vec![self.push(StageKey::new(StageKind::Reward, self.iteration + 1, shard), spec)]
    }

    fn after_reward(&mut self, shard: u32, rewards: ArtifactDigest) -> Vec<StageKey> {
        let (Some(policy), Some(trajectories)) = (self.policy, self.trajectories[shard as usize])
        else {
            return vec![];
        };
        let config = self.run.config();
        let spec = StageSpec::Gradient(GradientSpec {
            version: StageKind::Gradient.version(),
            numerics: config.numerics,
            seed: self.run.seed(),
            policy,
            trajectories,
            rewards,
            iteration: self.iteration + 1,
            shard,
            temperature: config.rollout.temperature,
            estimator: config.estimator.clone(),
        });
        vec![self.push(StageKey::new(StageKind::Gradient, self.iteration + 1, shard), spec)]
    }

    fn after_gradient(&mut self, shard: u32, gradient: ArtifactDigest) -> Vec<StageKey> {
        self.gradients[shard as usize] = Some(gradient);
        let gradients: Option<Vec<_>> = self.gradients.iter().copied().collect();
        let (Some(policy), Some(gradients)) = (self.policy, gradients) else {
            return vec![];
        };
        let config = self.run.config();
        let spec = StageSpec::Update(UpdateSpec {
            version: StageKind::Update.version(),
            numerics: config.numerics,
            policy,
            optimizer_state: self.optimizer_state,
            gradients,
            iteration: self.iteration + 1,
            iterations: config.training.iterations,
            optimizer: config.optimizer.clone(),
        });
        vec![self.push(StageKey::new(StageKind::Update, self.iteration + 1, 0), spec)]
    }

    fn push(&mut self, key: StageKey, spec: StageSpec) -> StageKey {
        self.pending.insert(key, spec);
        key
    }

    fn push_sft(&mut self, chunk: u32, start: SftStart) -> StageKey {
        let config = self.run.config();
        let sft = &config.sft;
        let first_step = chunk * sft.steps_per_stage;
        let spec = StageSpec::Sft(SftSpec {
            version: StageKind::Sft.version(),
            numerics: config.numerics,
            seed: self.run.seed(),
            task: config.task.clone(),
            completion_tokens: config.rollout.completion_tokens,
            start,
            first_step,
            steps: sft.steps_per_stage.min(sft.steps - first_step),
            total_steps: sft.steps,
            batch: sft.batch,
            micro_batch: sft.micro_batch,
            careless_from: sft.steps - sft.careless_steps,
            careless_share: sft.careless_share,
            optimizer: sft.optimizer.clone(),
        });
        self.push(StageKey::new(StageKind::Sft, chunk, 0), spec)
    }

    fn push_rollout(&mut self, iteration: u32, shard: u32, policy: ArtifactDigest) -> StageKey {
        let config = self.run.config();
        let rollout = &config.rollout;
        let prompts = rollout.prompts / rollout.shards;
        let first_prompt = u64::from(iteration - 1) * u64::from(rollout.prompts)
            + u64::from(shard) * u64::from(prompts);
        let spec = StageSpec::Rollout(RolloutSpec {
            version: StageKind::Rollout.version(),
            numerics: config.numerics,
            seed: self.run.seed(),
            task: config.task.clone(),
            policy,
            iteration,
            first_prompt,
            prompts,
            group: rollout.group,
            micro_batch: rollout.micro_batch,
            sampler: Sampler {
                completion_tokens: rollout.completion_tokens,
                block_tokens: rollout.block_tokens,
                steps: rollout.steps,
                temperature: rollout.temperature,
                top_k: rollout.top_k,
                top_p: rollout.top_p,
                position: rollout.position,
            },
        });
        self.push(StageKey::new(StageKind::Rollout, iteration, shard), spec)
    }

    fn push_evaluation(&mut self, iteration: u32, policy: ArtifactDigest) -> StageKey {
        let config = self.run.config();
        let greedy = |&steps: &u32| Sampler {
            completion_tokens: config.rollout.completion_tokens,
            block_tokens: config.rollout.block_tokens,
            steps,
            temperature: Real::new(0.0).expect("zero is finite"),
            top_k: 0,
            top_p: Real::new(1.0).expect("one is finite"),
            position: config.evaluation.position,
        };
        let spec = StageSpec::Evaluation(EvaluationSpec {
            version: StageKind::Evaluation.version(),
            numerics: config.numerics,
            task: config.task.clone(),
            policy,
            problems: config.evaluation.problems,
            micro_batch: config.evaluation.micro_batch,
            samplers: config.evaluation.steps.iter().map(greedy).collect(),
        });
        self.push(StageKey::new(StageKind::Evaluation, iteration, 0), spec)
    }
}

#[cfg(test)]
mod tests;
