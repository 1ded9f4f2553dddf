//! The specs of a plan's stages, from the run's sections. Decides nothing about order.

use super::{Plan, Shard, StageKey};
use crate::digest::ArtifactDigest;
use crate::run::{Base, Run, SftConfig};
use crate::stage::{
    EvaluationSpec, GradientSpec, RolloutSpec, Sampler, SftSpec, SftStart, StageKind, StageSpec,
    UpdateSpec,
};

impl Plan {
    /// Where a spec of this run stands in it, by what the spec says of itself. `None` for evaluations,
    /// which name a policy and no iteration. Whether the run has such a stage is not asked.
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
            StageSpec::Sft(spec) => match run.base() {
                Base::Scratch(_, sft) => {
                    let chunk = spec.first_step / sft.steps_per_stage.max(1);
                    Some(StageKey::new(StageKind::Sft, chunk, 0))
                }
                Base::Checkpoint(_) => None,
            },
            StageSpec::Rollout(spec) => sharded(StageKind::Rollout, spec.first_prompt),
            StageSpec::Reward(spec) => sharded(StageKind::Reward, spec.first_prompt),
            StageSpec::Gradient(spec) => {
                let key = StageKey::new(StageKind::Gradient, spec.iteration, spec.shard);
                Some(key.of_update(spec.inner))
            }
            StageSpec::Update(spec) => {
                let key = StageKey::new(StageKind::Update, spec.iteration, 0);
                Some(key.of_update(spec.inner))
            }
            StageSpec::Evaluation(_) => None,
        }
    }

    /// The run's evaluation of a policy.
    pub fn evaluation_of(run: &Run, policy: ArtifactDigest) -> StageSpec {
        let config = run.config();
        let evaluation = &config.evaluation;
        StageSpec::Evaluation(EvaluationSpec {
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
            samplers: evaluation
                .steps
                .iter()
                .map(|&steps| config.evaluation_sampler(steps))
                .collect(),
            merge_adapter: config.merges_adapter(),
            marking: config.marking(),
        })
    }

    /// The run's update in this place of a policy, by an optimizer's state and the shards' gradients.
    pub fn update_of(
        run: &Run,
        key: StageKey,
        (policy, optimizer_state, gradients): (
            ArtifactDigest,
            Option<ArtifactDigest>,
            Vec<ArtifactDigest>,
        ),
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

    /// The first prompt of a shard, counted over the whole run.
    pub(super) fn first_prompt(&self, iteration: u32, shard: u32) -> u64 {
        let rollout = &self.run.config().rollout;
        let prompts = rollout.prompts / rollout.shards;
        u64::from(iteration - 1) * u64::from(rollout.prompts)
            + u64::from(shard) * u64::from(prompts)
    }

    /// The shard's gradient for one of the iteration's updates; `None` only before its rewards.
    pub(super) fn push_gradient(&mut self, shard: u32, inner: u32) -> Option<StageKey> {
        let (behaviour, policy) = (self.policy?, self.moving?);
        let Shard { trajectories, rewards, .. } = self.shards[shard as usize];
        let config = self.run.config();
        let with_kl = config.estimator.kl.get() > 0.0;
        let spec = StageSpec::Gradient(GradientSpec {
            version: StageKind::Gradient.version(),
            numerics: config.numerics,
            seed: self.run.seed(),
            policy,
            precision: self.run.base().precision(),
            behaviour,
            reference: self.base.filter(|_| with_kl),
            trajectories: trajectories?,
            rewards: rewards?,
            group: config.rollout.group,
            iteration: self.iteration + 1,
            inner,
            shard,
            sampler: Sampler::from(&config.rollout),
            estimator: config.estimator.clone(),
            lora: config.lora.clone(),
        });
        let key = StageKey::new(StageKind::Gradient, self.iteration + 1, shard).of_update(inner);
        Some(self.push(key, spec))
    }

    pub(super) fn push_sft(&mut self, chunk: u32, start: SftStart, sft: &SftConfig) -> StageKey {
        let config = self.run.config();
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

    pub(super) fn push_rollout(
        &mut self,
        iteration: u32,
        shard: u32,
        policy: ArtifactDigest,
    ) -> StageKey {
        let config = self.run.config();
        let rollout = &config.rollout;
        let spec = StageSpec::Rollout(RolloutSpec {
            version: StageKind::Rollout.version(),
            numerics: config.numerics,
            seed: self.run.seed(),
            task: config.task.clone(),
            language: self.run.base().language(),
            policy,
            precision: self.run.base().precision(),
            iteration,
            first_prompt: self.first_prompt(iteration, shard),
            prompts: rollout.prompts / rollout.shards,
            group: rollout.group,
            micro_batch: rollout.micro_batch,
            sampler: Sampler::from(&config.rollout),
            merge_adapter: config.merges_adapter(),
        });
        self.push(StageKey::new(StageKind::Rollout, iteration, shard), spec)
    }

    pub(super) fn push_evaluation(&mut self, iteration: u32, policy: ArtifactDigest) -> StageKey {
        let spec = Self::evaluation_of(&self.run, policy);
        self.push(StageKey::new(StageKind::Evaluation, iteration, 0), spec)
    }
}
