//! The plan of a run: from the results so far to the stages that can be computed now.
//!
//! ```text
//! sft(0) -> ... -> sft(n) -> for i in 1..=iterations:
//!     rollout(i,s) -> reward(i,s)                    for every shard s
//!     for u in 1..=inner_updates:
//!         gradient(i,s,u)                            for every shard s
//!         update(i,u) joins the gradients in the order of shards
//! evaluation(i) hangs off the policy after update i; evaluation(0) off the base
//! ```
//!
//! Pure: given a finished stage, it returns the stages that became ready, in time that does not depend on
//! the run's length. It never asks whether anything is already computed: its caller does, and old results
//! go through the plan in the same way as new ones.

use std::collections::BTreeMap;

use crate::digest::ArtifactDigest;
use crate::run::{Base, Run, SftConfig};
use crate::stage::{SftStart, StageKind, StageSpec};

mod key;
mod retention;
mod specs;

pub use key::{ParseKeyError, StageKey};

use specs::Policies;

/// A result that the plan did not wait for, or that lacks an output.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
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
    /// Iterations done; at least 1.
    pub iteration: u32,
    /// The policy after them.
    pub policy: ArtifactDigest,
    /// The optimizer's state after them.
    pub optimizer: ArtifactDigest,
    /// The policy before iteration 1; needed where the run has a KL term.
    pub base: Option<ArtifactDigest>,
}

/// The state of a run's plan: what is pending, and what the next join waits for.
#[derive(Clone, Debug)]
pub struct Plan {
    run: Run,
    pending: BTreeMap<StageKey, StageSpec>,
    iteration: u32,
    base: Option<ArtifactDigest>,
    /// The policy after the last iteration, which samples the next.
    policy: Option<ArtifactDigest>,
    /// The policy that the next update moves; differs from `policy` within an iteration.
    moving: Option<ArtifactDigest>,
    optimizer_state: Option<ArtifactDigest>,
    shards: Vec<Shard>,
}

/// What is known of a shard of the iteration under way.
#[derive(Clone, Copy, Debug, Default)]
struct Shard {
    trajectories: Option<ArtifactDigest>,
    rewards: Option<ArtifactDigest>,
    /// Of the update under way.
    gradient: Option<ArtifactDigest>,
}

impl Plan {
    /// A run that has not begun: its first sft chunk is pending or, from a checkpoint, its first
    /// rollouts.
    pub fn new(run: Run) -> Self {
        let mut plan = Self::empty(run);
        match plan.run.base().clone() {
            Base::Scratch(model, sft) => {
                plan.push_sft(0, SftStart::Scratch(model), &sft);
            }
            Base::Checkpoint(checkpoint) => {
                plan.base = Some(checkpoint.folder);
                plan.begin_after(0, checkpoint.folder);
            }
        }
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
        plan.base = at.base;
        plan.begin_after(at.iteration, at.policy);
        plan
    }

    /// Continues from a later update than the plan has reached. Of the stages before it, only pending evaluations
    /// stay. A known base stays known.
    pub fn leap(&mut self, at: &Checkpoint) {
        self.pending.retain(|key, _| key.kind == StageKind::Evaluation);
        self.optimizer_state = Some(at.optimizer);
        self.base = at.base.or(self.base);
        self.begin_after(at.iteration, at.policy);
    }

    /// Goes on from the policy before iteration 1.
    pub fn leap_to_base(&mut self, policy: ArtifactDigest) {
        self.pending.clear();
        self.base = Some(policy);
        self.begin_after(0, policy);
    }

    /// Drops pending evaluations; no other stage waits for one.
    pub fn leave_evaluations(&mut self) {
        self.pending.retain(|key, _| key.kind != StageKind::Evaluation);
    }

    fn empty(run: Run) -> Self {
        Self {
            run,
            pending: BTreeMap::new(),
            iteration: 0,
            base: None,
            policy: None,
            moving: None,
            optimizer_state: None,
            shards: vec![],
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

    /// Iterations done so far.
    pub fn iteration(&self) -> u32 {
        self.iteration
    }

    /// The policy before iteration 1, where it is known.
    pub fn base(&self) -> Option<ArtifactDigest> {
        self.base
    }

    /// The newest policy, once there is one.
    pub fn policy(&self) -> Option<ArtifactDigest> {
        self.policy
    }

    /// All stages of the run, done or not.
    pub fn total_stages(run: &Run) -> u64 {
        let config = run.config();
        let chunks = u64::from(run.sft_chunks());
        let iterations = u64::from(config.training.iterations);
        let every = u64::from(config.evaluation.every);
        let evaluations = 1 + iterations.div_ceil(every);
        chunks + iterations * Self::stages_of_an_iteration(run) + evaluations
    }

    /// Stages of one iteration, evaluations left out.
    pub fn stages_of_an_iteration(run: &Run) -> u64 {
        let shards = u64::from(run.config().rollout.shards);
        let updates = u64::from(run.config().estimator.inner_updates);
        2 * shards + updates * (shards + 1)
    }

    /// The key of a spec of this run, from the spec's own fields. `None` for evaluations, which name a policy
    /// and no iteration. Does not check that the run has such a stage.
    pub fn place(run: &Run, spec: &StageSpec) -> Option<StageKey> {
        specs::place(run, spec)
    }

    /// The run's evaluation of a policy.
    pub fn evaluation_of(run: &Run, policy: ArtifactDigest) -> StageSpec {
        specs::evaluation(run, policy)
    }

    /// The run's update in this place of a policy, by an optimizer's state and the shards' gradients.
    pub fn update_of(
        run: &Run,
        key: StageKey,
        inputs: (ArtifactDigest, Option<ArtifactDigest>, Vec<ArtifactDigest>),
    ) -> StageSpec {
        specs::update(run, key, inputs)
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
            StageKind::Gradient => self.after_gradient(key, need("gradient")?),
            StageKind::Update => {
                let policy = need("policy")?;
                self.optimizer_state = Some(need("optimizer")?);
                self.after_update(key, policy)
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
        if let Base::Scratch(_, sft) = self.run.base().clone()
            && (chunk + 1) * sft.steps_per_stage < sft.steps
        {
            return vec![self.push_sft(chunk + 1, SftStart::Continue { policy, optimizer }, &sft)];
        }
        // Reinforcement learning begins with a fresh optimizer.
        self.base = Some(policy);
        self.begin_after(0, policy)
    }

    /// The policy after `iteration` updates is known: evaluate it, and sample from it.
    fn begin_after(&mut self, iteration: u32, policy: ArtifactDigest) -> Vec<StageKey> {
        self.iteration = iteration;
        self.policy = Some(policy);
        self.moving = Some(policy);
        let mut ready = vec![];
        if iteration < self.run.config().training.iterations {
            let shards = self.run.config().rollout.shards;
            self.shards = vec![Shard::default(); shards as usize];
            ready.extend((0..shards).map(|shard| self.push_rollout(iteration + 1, shard, policy)));
        }
        if self.run.is_evaluated(iteration) {
            ready.push(self.push_evaluation(iteration, policy));
        }
        ready
    }

    fn after_rollout(&mut self, shard: u32, trajectories: ArtifactDigest) -> Vec<StageKey> {
        self.shards[shard as usize].trajectories = Some(trajectories);
        let key = StageKey::new(StageKind::Reward, self.iteration + 1, shard);
        let spec = specs::reward(&self.run, key, trajectories);
        vec![self.push(key, spec)]
    }

    fn after_reward(&mut self, shard: u32, rewards: ArtifactDigest) -> Vec<StageKey> {
        self.shards[shard as usize].rewards = Some(rewards);
        self.push_gradient(shard, 1).into_iter().collect()
    }

    fn after_gradient(&mut self, key: StageKey, gradient: ArtifactDigest) -> Vec<StageKey> {
        self.shards[key.shard as usize].gradient = Some(gradient);
        let gradients: Option<Vec<_>> = self.shards.iter().map(|shard| shard.gradient).collect();
        let (Some(policy), Some(gradients)) = (self.moving, gradients) else {
            return vec![];
        };
        let update = StageKey::new(StageKind::Update, self.iteration + 1, 0).of_update(key.inner);
        let spec = specs::update(&self.run, update, (policy, self.optimizer_state, gradients));
        vec![self.push(update, spec)]
    }

    /// The trajectories may serve further updates; after the last, the iteration is done.
    fn after_update(&mut self, key: StageKey, policy: ArtifactDigest) -> Vec<StageKey> {
        if key.inner == self.run.config().estimator.inner_updates {
            return self.begin_after(key.iteration, policy);
        }
        self.moving = Some(policy);
        self.shards.iter_mut().for_each(|shard| shard.gradient = None);
        let shards = 0..self.run.config().rollout.shards;
        shards.filter_map(|shard| self.push_gradient(shard, key.inner + 1)).collect()
    }

    fn push_sft(&mut self, chunk: u32, start: SftStart, sft: &SftConfig) -> StageKey {
        let spec = specs::sft(&self.run, chunk, start, sft);
        self.push(StageKey::new(StageKind::Sft, chunk, 0), spec)
    }

    fn push_rollout(&mut self, iteration: u32, shard: u32, policy: ArtifactDigest) -> StageKey {
        let key = StageKey::new(StageKind::Rollout, iteration, shard);
        let spec = specs::rollout(&self.run, key, policy);
        self.push(key, spec)
    }

    /// The shard's gradient for one of the iteration's updates; `None` only before its rewards.
    fn push_gradient(&mut self, shard: u32, inner: u32) -> Option<StageKey> {
        let policies = Policies { behaviour: self.policy?, moving: self.moving?, base: self.base };
        let Shard { trajectories, rewards, .. } = self.shards[shard as usize];
        let key = StageKey::new(StageKind::Gradient, self.iteration + 1, shard).of_update(inner);
        let spec = specs::gradient(&self.run, key, policies, (trajectories?, rewards?));
        Some(self.push(key, spec))
    }

    fn push_evaluation(&mut self, iteration: u32, policy: ArtifactDigest) -> StageKey {
        let spec = specs::evaluation(&self.run, policy);
        self.push(StageKey::new(StageKind::Evaluation, iteration, 0), spec)
    }

    fn push(&mut self, key: StageKey, spec: StageSpec) -> StageKey {
        self.pending.insert(key, spec);
        key
    }
}

#[cfg(test)]
mod tests;
