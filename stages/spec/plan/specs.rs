//! The spec of each stage of a run, from the run's sections and the stage's inputs. Decides nothing about order.

use super::{Plan, Shard, StageKey};
use crate::digest::{Appended, ArtifactDigest};
use crate::run::{Base, Run, Sampler};
use crate::stage::{
    EvaluationSpec, GradientSpec, RewardSpec, RolloutSpec, SftSpec, SftStart, ShardSpec, StageKind,
    StageSpec, UpdateSpec, UpdatesSpec,
};

impl Plan {
    /// The key of a spec of this run, from the spec's own fields. `None` for evaluations, which name a policy
    /// and no iteration. Does not check that the run has such a stage.
    pub fn place(run: &Run, spec: &StageSpec) -> Option<StageKey> {
        let rollout = &run.config().rollout;
        let prompts = (rollout.prompts / rollout.shards).max(1);
        let sharded = |kind, first_prompt: u64| {
            let iteration = first_prompt / u64::from(rollout.prompts.max(1)) + 1;
            let shard = first_prompt % u64::from(rollout.prompts.max(1)) / u64::from(prompts);
            let (iteration, shard) = (u32::try_from(iteration), u32::try_from(shard));
            Some(StageKey::new(kind, iteration.ok()?, shard.ok()?))
        };
        match spec {
            StageSpec::Sft(spec) => {
                let Base::Scratch(_, sft) = run.base() else { return None };
                let chunk = spec.first_step / sft.steps_per_stage.max(1);
                Some(StageKey::new(StageKind::Sft, chunk, 0))
            }
            StageSpec::Rollout(spec) => sharded(StageKind::Rollout, spec.first_prompt),
            StageSpec::Reward(spec) => sharded(StageKind::Reward, spec.first_prompt),
            StageSpec::Gradient(spec) => {
                let key = StageKey::new(StageKind::Gradient, spec.iteration, spec.shard);
                Some(key.of_update(spec.inner))
            }
            StageSpec::Update(spec) => Some(StageKey::update(spec.iteration, spec.inner)),
            StageSpec::Updates(spec) => Some(StageKey::updates(spec.iteration)),
            StageSpec::Evaluation(_) => None,
        }
    }

    /// The run's evaluation in this place, of the policy that is there: whole, or one of its shards. `None` where the
    /// run has no such stage.
    pub fn evaluation_of(run: &Run, key: StageKey, policy: ArtifactDigest) -> Option<StageSpec> {
        let config = run.config();
        let evaluation = &config.evaluation;
        let whole = EvaluationSpec {
            version: StageKind::Evaluation.version(),
            numerics: config.numerics,
            seed: run.seed(),
            task: config.task.clone(),
            language: run.base().language(),
            policy,
            precision: run.base().precision(),
            problems: evaluation.problems,
            samples: 1,
            micro_batch: evaluation.micro_batch,
            samplers: config.evaluation_samplers(),
            merge_adapter: config.merges_adapter(),
            grading: config.grading(),
            shard: Appended::default(),
        };
        let is_evaluated = key.kind == StageKind::Evaluation && run.is_evaluated(key.iteration);
        let spec = match (key.shard, config.evaluation_shards()) {
            (None, 1) => Some(whole),
            (Some(number), shards @ 2..) => whole.nth_shard(number, shards),
            _ => None,
        };
        spec.filter(|_| is_evaluated).map(StageSpec::Evaluation)
    }

    /// Whether a spec is the run's update in this place, whatever its inputs are.
    pub fn is_update_of(run: &Run, key: StageKey, spec: &StageSpec) -> bool {
        let ours = match spec {
            StageSpec::Update(UpdateSpec { policy, optimizer_state, gradients, .. }) => {
                Self::update_of(run, key, *policy, *optimizer_state, gradients.clone())
            }
            StageSpec::Updates(UpdatesSpec {
                policy, optimizer_state, reference, shards, ..
            }) => {
                let policies = (*policy, *reference);
                Self::updates_of(run, key, policies, *optimizer_state, shards.clone())
            }
            _ => return false,
        };
        let is_fused = run.config().estimator.fused_updates;
        is_fused == (ours.kind() == StageKind::Updates) && ours == *spec
    }

    /// The update of a policy from an optimizer's state and the gradients, in the order of shards.
    fn update_of(
        run: &Run,
        key: StageKey,
        policy: ArtifactDigest,
        optimizer_state: Option<ArtifactDigest>,
        gradients: Vec<ArtifactDigest>,
    ) -> StageSpec {
        let config = run.config();
        StageSpec::Update(UpdateSpec {
            version: StageKind::Update.version(),
            numerics: config.numerics,
            policy,
            optimizer_state,
            gradients,
            iteration: key.iteration,
            inner: key.inner,
            inner_updates: config.estimator.inner_updates,
            iterations: config.training.iterations,
            optimizer: config.optimizer.clone(),
            seed: run.seed(),
            lora: config.lora.clone(),
        })
    }

    /// All inner updates of an iteration, of a policy that sampled, with the one before iteration 1, from the
    /// optimizer's state and the results of all shards, in their order.
    fn updates_of(
        run: &Run,
        key: StageKey,
        (policy, base): (ArtifactDigest, Option<ArtifactDigest>),
        optimizer_state: Option<ArtifactDigest>,
        shards: Vec<ShardSpec>,
    ) -> StageSpec {
        let config = run.config();
        StageSpec::Updates(UpdatesSpec {
            version: StageKind::Updates.version(),
            numerics: config.numerics,
            seed: run.seed(),
            policy,
            precision: run.base().precision(),
            optimizer_state,
            reference: reference(run, base),
            shards,
            group: config.rollout.group,
            iteration: key.iteration,
            iterations: config.training.iterations,
            sampler: Sampler::from(&config.rollout),
            estimator: config.estimator.clone(),
            optimizer: config.optimizer.clone(),
            lora: config.lora.clone(),
        })
    }

    /// The spec of a chunk of sft, or of a stage of the current iteration; `None` before its inputs are known.
    pub(super) fn spec(&self, key: StageKey) -> Option<StageSpec> {
        match key.kind {
            StageKind::Sft => self.sft(key.iteration),
            StageKind::Rollout => {
                Some(StageSpec::Rollout(Self::rollout_of(&self.run, key, self.policy?)))
            }
            StageKind::Reward => self.reward(key),
            StageKind::Gradient => self.gradient(key),
            StageKind::Update => {
                let gradients: Option<Vec<_>> =
                    self.shards.iter().map(|shard| shard.gradient).collect();
                let (policy, optimizer) = (self.moving?, self.optimizer_state);
                Some(Self::update_of(&self.run, key, policy, optimizer, gradients?))
            }
            StageKind::Updates => {
                let of = |shard: &Shard| {
                    let (trajectories, rewards) = (shard.trajectories?, shard.rewards?);
                    Some(ShardSpec { trajectories, rewards })
                };
                let shards: Option<Vec<_>> = self.shards.iter().map(of).collect();
                let policies = (self.policy?, self.base);
                Some(Self::updates_of(&self.run, key, policies, self.optimizer_state, shards?))
            }
            StageKind::Evaluation => Self::evaluation_of(&self.run, key, self.policy?),
        }
    }

    fn sft(&self, chunk: u32) -> Option<StageSpec> {
        let (run, config) = (&self.run, self.run.config());
        let Base::Scratch(model, sft) = run.base() else { return None };
        let start = match (self.moving, self.optimizer_state) {
            (Some(policy), Some(optimizer)) => SftStart::Continue { policy, optimizer },
            _ => SftStart::Scratch(model.clone()),
        };
        let first_step = chunk * sft.steps_per_stage;
        Some(StageSpec::Sft(SftSpec {
            version: StageKind::Sft.version(),
            numerics: config.numerics,
            seed: run.seed(),
            task: config.task.clone(),
            completion_tokens: config.rollout.completion_tokens,
            start,
            first_step,
            steps: sft.steps_per_stage.min(sft.steps - first_step),
            total_steps: sft.steps,
            batch: sft.batch,
            micro_batch: sft.micro_batch,
            noisy_from: sft.steps - sft.noisy_steps,
            noisy_share: sft.noisy_share,
            optimizer: sft.optimizer.clone(),
        }))
    }

    /// The run's rollout in this place, from a policy.
    pub fn rollout_of(run: &Run, key: StageKey, policy: ArtifactDigest) -> RolloutSpec {
        let config = run.config();
        let rollout = &config.rollout;
        RolloutSpec {
            version: StageKind::Rollout.version(),
            numerics: config.numerics,
            seed: run.seed(),
            task: config.task.clone(),
            language: run.base().language(),
            policy,
            precision: run.base().precision(),
            iteration: key.iteration,
            first_prompt: first_prompt(run, key),
            prompts: rollout.prompts / rollout.shards,
            group: rollout.group,
            micro_batch: rollout.micro_batch,
            sampler: Sampler::from(rollout),
            merge_adapter: config.merges_adapter(),
        }
    }

    fn reward(&self, key: StageKey) -> Option<StageSpec> {
        let (run, config) = (&self.run, self.run.config());
        Some(StageSpec::Reward(RewardSpec {
            version: StageKind::Reward.version(),
            numerics: config.numerics,
            task: config.task.clone(),
            language: run.base().language(),
            trajectories: self.shards[key.shard_number() as usize].trajectories?,
            first_prompt: first_prompt(run, key),
            group: config.rollout.group,
            reward: config.reward.clone(),
            advantage: config.advantage.clone(),
        }))
    }

    fn gradient(&self, key: StageKey) -> Option<StageSpec> {
        let (run, config) = (&self.run, self.run.config());
        let shard = self.shards[key.shard_number() as usize];
        Some(StageSpec::Gradient(GradientSpec {
            version: StageKind::Gradient.version(),
            numerics: config.numerics,
            seed: run.seed(),
            policy: self.moving?,
            precision: run.base().precision(),
            behaviour: self.policy?,
            reference: reference(run, self.base),
            trajectories: shard.trajectories?,
            rewards: shard.rewards?,
            group: config.rollout.group,
            iteration: key.iteration,
            inner: key.inner,
            shard: key.shard_number(),
            sampler: Sampler::from(&config.rollout),
            estimator: config.estimator.clone(),
            lora: config.lora.clone(),
        }))
    }
}

/// The policy that divergences are measured from, where they count: the one before iteration 1.
fn reference(run: &Run, base: Option<ArtifactDigest>) -> Option<ArtifactDigest> {
    base.filter(|_| run.config().estimator.kl.get() > 0.0)
}

/// The first prompt of a shard, counted over the whole run.
fn first_prompt(run: &Run, key: StageKey) -> u64 {
    let rollout = &run.config().rollout;
    let prompts = rollout.prompts / rollout.shards;
    u64::from(key.iteration - 1) * u64::from(rollout.prompts)
        + u64::from(key.shard_number()) * u64::from(prompts)
}
