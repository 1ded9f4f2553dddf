//! Gradient: the policy gradient of one shard, summed over passes. Refuses trajectories that another policy
//! sampled. Takes no optimizer step.
//!
//! `estimator.checkpointing = "auto"` is decided here, from the estimate of this stage and the memory that it may take.

use std::collections::BTreeMap;

use agrpo_spec::memory::{GradientSizes, Workload};
use agrpo_spec::metrics::{self, Metrics};
use agrpo_spec::{
    Artifact, ArtifactDigest, Checkpointing, Content, EstimatorConfig, EstimatorKind, Files,
    GradientSpec, Inputs, Message, Outputs, Purpose, Rewards, Sampler, Seed, ShardSpec, StageKind,
    StepEvery, Strata, decode,
};
use tch::Tensor;

use crate::error::{Result, data, invalid};
use crate::estimator::{Batch, Estimate, Measured, Policies, Worth, accumulate, estimator};
use crate::model::{ModelConfig, Placement, Policy};
use crate::{
    context::{Context, Memory},
    tensors,
    trajectories::Trajectories,
};

/// The tensor beside the gradient in its file: the number that it is a mean over, one f64.
pub(crate) const MEAN_OVER: &str = "mean_over";

pub(crate) fn execute(
    spec: &GradientSpec,
    inputs: &Inputs,
    Context { device, cache, resources, memory, .. }: Context<'_>,
) -> Result<Outputs> {
    let threads = &resources.passes;
    check(&spec.estimator, &spec.sampler, spec.reference)?;
    if spec.estimator.step_every == StepEvery::Sample {
        return Err(invalid(
            "estimator.step_every = \"sample\": expected \"batch\": a gradient stage takes no steps",
        ));
    }
    let shard = ShardSpec { trajectories: spec.trajectories, rewards: spec.rewards };
    let samples = Samples::read(shard, spec.behaviour, inputs)?;
    let files = inputs.folder(spec.policy)?;
    let at = Placement::on(device, spec.precision);
    let policy = cache.policy(spec.policy, files, false, at)?;
    check_family(&spec.estimator, &policy)?;
    let policy = policy.ready_to_train(spec.lora.as_ref(), spec.seed)?;
    let load = |digest| policy.beside(files, inputs.folder(digest)?);
    let batch = samples.batch((spec.shard, spec.group), &spec.sampler, policy.config())?;
    let behaviour = (spec.behaviour != spec.policy).then(|| load(spec.behaviour)).transpose()?;
    let reference = spec.reference.map(load).transpose()?;
    let policies =
        Policies { policy: &policy, behaviour: behaviour.as_ref(), reference: reference.as_ref() };
    let seed = seed(spec.seed, spec.iteration, (spec.shard, spec.inner), &spec.estimator);
    let estimator = estimator(&batch, &spec.estimator, seed);
    let sizes = GradientSizes {
        estimator: &spec.estimator,
        sampler: &spec.sampler,
        group: spec.group,
        precision: spec.precision,
        lora: spec.lora.as_ref(),
        shards: 1,
        other_policies: u64::from(reference.is_some()) + u64::from(behaviour.is_some()),
        sizes: policy.config().memory_sizes(),
        length: samples.length(),
        inputs_in_memory: is_in_memory(files),
        threads: resources.passes_of_stage(),
        is_gpu: device.is_cuda(),
    };
    let config = decided(StageKind::Gradient, sizes, memory);
    let Estimate { mut gradient, measured } = accumulate(&estimator, &policies, &config, threads)?;
    gradient.insert(MEAN_OVER.to_owned(), Tensor::from_slice(&[estimator.mean_over]));
    let artifact = Artifact::Blob(tensors::write(&gradient)?.into());
    Ok(Outputs {
        artifacts: BTreeMap::from([("gradient", artifact)]),
        metrics: metrics(empty(&batch), &measured, estimator.samples as f64),
    })
}

/// The trajectories of a shard, and what each is worth.
pub(crate) struct Samples {
    trajectories: Trajectories,
    worths: Vec<Worth>,
}

impl Samples {
    /// Refuses trajectories that another policy than `behaviour` sampled.
    pub(crate) fn read(
        shard: ShardSpec,
        behaviour: ArtifactDigest,
        inputs: &Inputs,
    ) -> Result<Self> {
        let trajectories = Trajectories::from_bytes(inputs.blob(shard.trajectories)?)?;
        check_origin(&trajectories, behaviour)?;
        let rewards: Rewards = decode(inputs.blob(shard.rewards)?)
            .ok_or_else(|| data("the rewards cannot be read"))?;
        let worths = rewards.rows.iter().map(Worth::from).collect();
        Ok(Self { trajectories, worths })
    }

    /// Tokens of a trajectory, prompt and completion.
    pub(crate) fn length(&self) -> u64 {
        (self.trajectories.prompt_len + self.trajectories.completion_len) as u64
    }

    pub(crate) fn batch<'a>(
        &'a self,
        (shard, group): (u32, u32),
        sampler: &'a Sampler,
        model: &'a ModelConfig,
    ) -> Result<Batch<'a>> {
        let all = Batch::new(&self.trajectories, &self.worths, group as usize, sampler, model)?;
        Ok(all.of_shard(shard))
    }
}

/// The seed of all draws for one update from one shard. Where timesteps are spread over groups it is that of all shards,
/// and each group has a branch of its own.
pub(crate) fn seed(
    run: Seed,
    iteration: u32,
    (shard, inner): (u32, u32),
    estimator: &EstimatorConfig,
) -> Seed {
    let iteration = run.child(Purpose::Iteration, u64::from(iteration));
    let draws_timesteps = matches!(estimator.kind, EstimatorKind::Agrpo | EstimatorKind::ArGrpo);
    let of_shard = if draws_timesteps && estimator.strata == Strata::Group {
        iteration
    } else {
        iteration.child(Purpose::Timestep, u64::from(shard))
    };
    of_shard.child(Purpose::Sample, u64::from(inner))
}

/// Plans contain only valid combinations; a spec of another origin may not.
pub(crate) fn check(
    estimator: &EstimatorConfig,
    sampler: &Sampler,
    reference: Option<ArtifactDigest>,
) -> Result<()> {
    estimator.check_sampler(sampler).map_err(|error| invalid(Message::of(error)))?;
    let kl = estimator.kl;
    if kl.get() > 0.0 && reference.is_none() {
        return Err(invalid(format!("estimator.kl = {kl}: expected a reference policy beside it")));
    }
    Ok(())
}

/// The same for what follows from the policy's family.
pub(crate) fn check_family(estimator: &EstimatorConfig, policy: &Policy) -> Result<()> {
    estimator.check_family(policy.config().family).map_err(|error| invalid(Message::of(error)))
}

/// Whether a policy's files are read as a whole.
pub(crate) fn is_in_memory(files: &Files) -> bool {
    files.values().all(|content| matches!(content, Content::Memory(_)))
}

/// The estimator, its passes checkpointed or not.
pub(crate) fn decided(
    kind: StageKind,
    sizes: GradientSizes<'_>,
    memory: &Memory,
) -> EstimatorConfig {
    let asked = sizes.estimator.checkpointing;
    let workload = Workload::of_gradient(&sizes).decided(kind, asked, memory.available);
    memory.fits.set(asked == Checkpointing::Auto && !workload.checkpointing);
    let checkpointing =
        if workload.checkpointing { Checkpointing::Always } else { Checkpointing::Never };
    EstimatorConfig { checkpointing, ..sizes.estimator.clone() }
}

fn check_origin(trajectories: &Trajectories, behaviour: ArtifactDigest) -> Result<()> {
    match trajectories.policy {
        Some(policy) if policy == behaviour => Ok(()),
        Some(policy) => Err(data(format!(
            "the trajectories were sampled by the policy {policy}, expected {behaviour}"
        ))),
        None => Err(data("the trajectories do not say which policy sampled them")),
    }
}

/// Completions without a step to learn from.
pub(crate) fn empty(batch: &Batch<'_>) -> usize {
    (0..batch.rows()).filter(|&row| batch.horizon(row) == 0).count()
}

pub(crate) fn metrics(empty: usize, measured: &Measured, samples: f64) -> Metrics {
    let share = |part: f64| if measured.factors > 0.0 { part / measured.factors } else { 0.0 };
    BTreeMap::from([
        (metrics::LOSS.into(), measured.loss),
        (metrics::KL.into(), measured.kl),
        (metrics::CLIP_SHARE.into(), share(measured.clipped_low + measured.clipped_high)),
        (metrics::CLIP_SHARE_LOW.into(), share(measured.clipped_low)),
        (metrics::CLIP_SHARE_HIGH.into(), share(measured.clipped_high)),
        (metrics::RATIO_DEVIATION.into(), measured.ratio_deviation),
        (metrics::SAMPLES.into(), samples),
        (metrics::STATES.into(), measured.states),
        (metrics::EMPTY_COMPLETIONS.into(), empty as f64),
    ])
}

#[cfg(test)]
mod tests;
