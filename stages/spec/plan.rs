//! The plan of a run: from the results so far to the stages that can be computed now.
//!
//! ```text
//! sft(0) -> ... -> sft(n) -> for i in 1..=iterations:
//!     rollout(i,s) -> reward(i,s)                    for every shard s
//!     for u in 1..=inner_updates:
//!         gradient(i,s,u)                            for every shard s
//!         update(i,u) joins the gradients in the order of shards
//!     or, with fused updates, in place of these:
//!         updates(i) joins the rewards of all shards
//! evaluation(i), one stage or several shards, hangs off the policy after update i; evaluation(0) off the base
//! ```
//!
//! Pure: given a finished stage, it returns the stages that became ready, in time that does not depend on
//! the run's length. It never asks whether anything is already computed: its caller does, and old results
//! go through the plan in the same way as new ones.

use std::collections::{BTreeMap, BTreeSet};

use crate::digest::ArtifactDigest;
use crate::run::{Base, CheckpointConfig, Run};
use crate::stage::{StageKind, StageSpec};

mod key;
mod retention;
mod specs;

pub use key::{ParseKeyError, StageKey};

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

/// The state of a run after an update, from which the plan continues without walking the chain from its start.
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
    /// The policy that the next update or chunk of sft moves; differs from `policy` within an iteration.
    moving: Option<ArtifactDigest>,
    /// The optimizer's state for that policy.
    optimizer_state: Option<ArtifactDigest>,
    shards: Vec<Shard>,
}

/// The known results of a shard in the current iteration.
#[derive(Clone, Copy, Debug, Default)]
struct Shard {
    trajectories: Option<ArtifactDigest>,
    rewards: Option<ArtifactDigest>,
    /// The gradient for the current update.
    gradient: Option<ArtifactDigest>,
}

impl Plan {
    /// A run that has not begun: its first sft chunk is pending or, from a checkpoint, its first
    /// rollouts.
    pub fn new(run: Run) -> Self {
        let mut plan = Self::empty(run);
        match *plan.run.base() {
            Base::Checkpoint(CheckpointConfig { folder, .. }) => plan.leap_to_base(folder),
            Base::Scratch(..) => plan.push([StageKey::new(StageKind::Sft, 0, 0)]),
        };
        plan
    }

    /// A run that stands at a checkpoint. `evaluations` are those of earlier policies that have no result yet.
    pub fn resume(
        run: Run,
        at: &Checkpoint,
        evaluations: impl IntoIterator<Item = (StageKey, StageSpec)>,
    ) -> Self {
        let mut plan = Self::empty(run);
        plan.pending.extend(evaluations);
        plan.leap(at);
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

    /// Continues from the policy before iteration 1, with a fresh optimizer. Returns the stages that became ready.
    pub fn leap_to_base(&mut self, policy: ArtifactDigest) -> Vec<StageKey> {
        self.pending.clear();
        self.base = Some(policy);
        self.optimizer_state = None;
        self.begin_after(0, policy)
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

    /// The stages that can be computed now, in the order in which they should start.
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
        Self::stages_before(run, run.config().training.iterations)
            + u64::from(run.config().evaluation_shards())
    }

    /// Stages until this many updates are done, including the evaluations of all policies before the last of them.
    pub fn stages_before(run: &Run, iterations: u32) -> u64 {
        let config = run.config();
        let (shards, updates) = (config.rollout.shards, config.estimator.inner_updates);
        let inner = if config.estimator.fused_updates {
            1
        } else {
            u64::from(updates) * (u64::from(shards) + 1)
        };
        let an_iteration = 2 * u64::from(shards) + inner;
        let evaluations = u64::from(iterations.div_ceil(config.evaluation.every))
            * u64::from(config.evaluation_shards());
        u64::from(run.sft_chunks()) + u64::from(iterations) * an_iteration + evaluations
    }

    /// The last chunk of fine-tuning; `None` where the base is a checkpoint.
    pub fn last_chunk(run: &Run) -> Option<StageKey> {
        let last = run.sft_chunks().checked_sub(1)?;
        Some(StageKey::new(StageKind::Sft, last, 0))
    }

    /// The last update of an iteration, or all of them if they are one stage.
    pub fn last_update(run: &Run, iteration: u32) -> StageKey {
        let estimator = &run.config().estimator;
        if estimator.fused_updates {
            return StageKey::updates(iteration);
        }
        StageKey::update(iteration, estimator.inner_updates)
    }

    /// The first update of an iteration, or all of them if they are one stage.
    pub fn first_update(run: &Run, iteration: u32) -> StageKey {
        Self::last_update(run, iteration).of_update(1)
    }

    /// The stage that joins the shards of an iteration, if it joins them from results of this stage's kind.
    pub fn joins(run: &Run, key: StageKey) -> Option<StageKey> {
        match (key.kind, run.config().estimator.fused_updates) {
            (StageKind::Gradient, false) => Some(StageKey::update(key.iteration, key.inner)),
            (StageKind::Reward, true) => Some(StageKey::updates(key.iteration)),
            _ => None,
        }
    }

    /// The stages that evaluate the policy after so many iterations, in order; none where it is not evaluated.
    pub fn evaluations(run: &Run, iteration: u32) -> Vec<StageKey> {
        let key = |shard| StageKey::evaluation(iteration, shard);
        match run.config().evaluation_shards() {
            _ if !run.is_evaluated(iteration) => vec![],
            1 => vec![key(None)],
            shards => (0..shards).map(|shard| key(Some(shard))).collect(),
        }
    }

    /// The iterations whose last update is among these places.
    pub fn iterations_done<'a>(
        run: &Run,
        keys: impl IntoIterator<Item = &'a StageKey>,
    ) -> BTreeSet<u32> {
        let last = |key: &&StageKey| **key == Self::last_update(run, key.iteration);
        keys.into_iter().filter(last).map(|key| key.iteration).collect()
    }

    /// The newest of these iterations; 0 where there is none.
    pub fn newest_iteration<'a>(run: &Run, keys: impl IntoIterator<Item = &'a StageKey>) -> u32 {
        Self::iterations_done(run, keys).last().copied().unwrap_or(0)
    }

    /// Records a stage's result; returns the stages that became ready.
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
        let shard = key.shard_number() as usize;
        let ready = match key.kind {
            StageKind::Sft => {
                let (policy, optimizer) = (need("policy")?, need("optimizer")?);
                if Some(key) == Self::last_chunk(&self.run) {
                    self.leap_to_base(policy)
                } else {
                    (self.moving, self.optimizer_state) = (Some(policy), Some(optimizer));
                    self.push([StageKey::new(StageKind::Sft, key.iteration + 1, 0)])
                }
            }
            StageKind::Rollout => {
                self.shards[shard].trajectories = Some(need("trajectories")?);
                self.push([StageKey { kind: StageKind::Reward, ..key }])
            }
            StageKind::Reward => {
                self.shards[shard].rewards = Some(need("rewards")?);
                let joins = Self::joins(&self.run, key);
                self.push([joins.unwrap_or(StageKey { kind: StageKind::Gradient, ..key })])
            }
            StageKind::Gradient => {
                self.shards[shard].gradient = Some(need("gradient")?);
                self.push(Self::joins(&self.run, key))
            }
            StageKind::Update | StageKind::Updates => {
                let policy = need("policy")?;
                self.optimizer_state = Some(need("optimizer")?);
                self.after_update(key, policy)
            }
            StageKind::Evaluation => vec![],
        };
        self.pending.remove(&key);
        Ok(ready)
    }

    /// Starts the next update from the same trajectories; after the last one, ends the iteration.
    fn after_update(&mut self, key: StageKey, policy: ArtifactDigest) -> Vec<StageKey> {
        if key == Self::last_update(&self.run, key.iteration) {
            return self.begin_after(key.iteration, policy);
        }
        self.moving = Some(policy);
        self.shards.iter_mut().for_each(|shard| shard.gradient = None);
        let shards = 0..self.run.config().rollout.shards;
        let gradient = |shard| StageKey::new(StageKind::Gradient, key.iteration, shard);
        self.push(shards.map(|shard| gradient(shard).of_update(key.inner + 1)))
    }

    /// The policy after `iteration` updates is known: evaluate it, and sample from it.
    fn begin_after(&mut self, iteration: u32, policy: ArtifactDigest) -> Vec<StageKey> {
        self.iteration = iteration;
        self.policy = Some(policy);
        self.moving = Some(policy);
        let config = self.run.config();
        let goes_on = iteration < config.training.iterations;
        let shards = if goes_on { config.rollout.shards } else { 0 };
        self.shards = vec![Shard::default(); shards as usize];
        let rollout = |shard| StageKey::new(StageKind::Rollout, iteration + 1, shard);
        let evaluations = Self::evaluations(&self.run, iteration);
        self.push((0..shards).map(rollout).chain(evaluations))
    }

    /// Adds the stages whose inputs are known, and returns them.
    fn push(&mut self, keys: impl IntoIterator<Item = StageKey>) -> Vec<StageKey> {
        let mut ready = vec![];
        for key in keys {
            if let Some(spec) = self.spec(key) {
                self.pending.insert(key, spec);
                ready.push(key);
            }
        }
        ready
    }
}

#[cfg(test)]
mod tests;
