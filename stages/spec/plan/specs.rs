//! The spec of each stage of a run, from the run's sections and the stage's inputs. Decides nothing about order.

use super::key::StageKey;
use crate::digest::ArtifactDigest;
use crate::run::{Base, Run, Sampler, SftConfig};
use crate::stage::{
    EvaluationSpec, GradientSpec, RewardSpec, RolloutSpec, SftSpec, SftStart, StageKind, StageSpec,
    UpdateSpec,
};

/// The policies that a gradient reads.
#[derive(Clone, Copy)]
pub(super) struct Policies {
    /// The one that sampled the trajectories.
    pub(super) behaviour: ArtifactDigest,
    /// The one that the update moves.
    pub(super) moving: ArtifactDigest,
    /// The one before iteration 1, where it is known.
    pub(super) base: Option<ArtifactDigest>,
}

pub(super) fn place(run: &Run, spec: &StageSpec) -> Option<StageKey> {
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

pub(super) fn evaluation(run: &Run, policy: ArtifactDigest) -> StageSpec {
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
        samplers: evaluation.steps.iter().map(|&steps| config.evaluation_sampler(steps)).collect(),
        merge_adapter: config.merges_adapter(),
        marking: config.marking(),
    })
}

pub(super) fn update(
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
fn first_prompt(run: &Run, iteration: u32, shard: u32) -> u64 {
    let rollout = &run.config().rollout;
    let prompts = rollout.prompts / rollout.shards;
    u64::from(iteration - 1) * u64::from(rollout.prompts) + u64::from(shard) * u64::from(prompts)
}

pub(super) fn sft(run: &Run, chunk: u32, start: SftStart, sft: &SftConfig) -> StageSpec {
    let config = run.config();
    let first_step = chunk * sft.steps_per_stage;
    StageSpec::Sft(SftSpec {
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
        careless_from: sft.steps - sft.careless_steps,
        careless_share: sft.careless_share,
        optimizer: sft.optimizer.clone(),
    })
}

pub(super) fn rollout(run: &Run, key: StageKey, policy: ArtifactDigest) -> StageSpec {
    let config = run.config();
    let rollout = &config.rollout;
    StageSpec::Rollout(RolloutSpec {
        version: StageKind::Rollout.version(),
        numerics: config.numerics,
        seed: run.seed(),
        task: config.task.clone(),
        language: run.base().language(),
        policy,
        precision: run.base().precision(),
        iteration: key.iteration,
        first_prompt: first_prompt(run, key.iteration, key.shard),
        prompts: rollout.prompts / rollout.shards,
        group: rollout.group,
        micro_batch: rollout.micro_batch,
        sampler: Sampler::from(rollout),
        merge_adapter: config.merges_adapter(),
    })
}

pub(super) fn reward(run: &Run, key: StageKey, trajectories: ArtifactDigest) -> StageSpec {
    let config = run.config();
    StageSpec::Reward(RewardSpec {
        version: StageKind::Reward.version(),
        numerics: config.numerics,
        task: config.task.clone(),
        language: run.base().language(),
        trajectories,
        first_prompt: first_prompt(run, key.iteration, key.shard),
        group: config.rollout.group,
        reward: config.reward.clone(),
        advantage: config.advantage.clone(),
    })
}

pub(super) fn gradient(
    run: &Run,
    key: StageKey,
    policies: Policies,
    (trajectories, rewards): (ArtifactDigest, ArtifactDigest),
) -> StageSpec {
    let config = run.config();
    let with_kl = config.estimator.kl.get() > 0.0;
    StageSpec::Gradient(GradientSpec {
        version: StageKind::Gradient.version(),
        numerics: config.numerics,
        seed: run.seed(),
        policy: policies.moving,
        precision: run.base().precision(),
        behaviour: policies.behaviour,
        reference: policies.base.filter(|_| with_kl),
        trajectories,
        rewards,
        group: config.rollout.group,
        iteration: key.iteration,
        inner: key.inner,
        shard: key.shard,
        sampler: Sampler::from(&config.rollout),
        estimator: config.estimator.clone(),
        lora: config.lora.clone(),
    })
}
