//! Updates: all inner updates of an iteration in one stage, from the trajectories and rewards of all its shards. What
//! it leaves is what the gradient and update stages would leave one after another, to the byte; with
//! `step_every = "sample"`, for which there are no such stages, what `estimator/by_sample.rs` says. Refuses trajectories
//! that another policy sampled. Stores nothing between.
//!
//! Passes are computed on the device, the optimizer's steps on the host. In memory are the policy that sampled, the
//! one that moves, the reference if there is a KL term, the optimizer's moments, the mean of the gradients so far, and
//! one shard's gradient.

use agrpo_spec::memory::GradientSizes;
use agrpo_spec::metrics::{Metrics, joined};
use agrpo_spec::{EstimatorConfig, Inputs, Outputs, StageError, StageKind, StepEvery, UpdatesSpec};

use tch::Kind;

use crate::context::Context;
use crate::error::{Result, invalid};
use crate::estimator::{
    Batch, Estimate, Estimator, Measured, Policies, accumulate, estimator, steps_by_sample,
};
use crate::gradient::{self, Samples};
use crate::model::{Placement, Policy};
use crate::tensors::NamedTensors;
use crate::threads::Threads;
use crate::update::{self, Trained};

pub(crate) fn execute(
    spec: &UpdatesSpec,
    inputs: &Inputs,
    Context { device, cache, resources, memory, .. }: Context<'_>,
) -> Result<Outputs> {
    let (threads, host) = (&resources.passes, &resources.host);
    check(spec)?;
    let samples = samples(spec, inputs)?;
    let files = inputs.folder(spec.policy)?;
    let at = Placement::on(device, spec.precision);
    // The cache keeps the policy that sampled; the one that moves is on memory of its own.
    let behaviour = cache.policy(spec.policy, files, false, at)?;
    gradient::check_family(&spec.estimator, &behaviour)?;
    let policy = behaviour.handles().ready_to_train(spec.lora.as_ref(), spec.seed)?.apart();
    let load = |digest| policy.beside(files, inputs.folder(digest)?);
    let reference = spec.reference.map(load).transpose()?;
    let batches = (0..)
        .zip(&samples)
        .map(|(shard, of)| of.batch((shard, spec.group), &spec.sampler, policy.config()))
        .collect::<Result<Vec<_>>>()?;
    check_groups(spec, &batches)?;
    let config = gradient::decided(
        StageKind::Updates,
        GradientSizes {
            estimator: &spec.estimator,
            sampler: &spec.sampler,
            group: spec.group,
            precision: spec.precision,
            lora: spec.lora.as_ref(),
            shards: samples.len() as u64,
            other_policies: 1 + u64::from(reference.is_some()),
            sizes: policy.config().memory_sizes(),
            length: samples.iter().map(Samples::length).max().unwrap_or(0),
            inputs_in_memory: gradient::is_in_memory(files),
            threads: resources.passes_of_stage(),
            is_gpu: device.is_cuda(),
        },
        memory,
    );
    // The weights of half precision are rounded from masters in f32, which the policy's files have.
    let masters = needs_masters(&policy).then(|| Policy::from_folder(files)).transpose()?;
    let mut parameters = masters.as_ref().unwrap_or(&policy).parameters();
    let mut optimizer = update::optimizer(spec.optimizer_state, inputs, &parameters, host)?;
    let (mut gradients, mut updates) = (vec![], vec![]);
    let when = (spec.iteration, spec.iterations);
    for inner in 1..=spec.estimator.inner_updates {
        let mut measured = vec![(Measured::default(), 0); batches.len()];
        for step in steps(spec, &config, inner, &batches) {
            let policies = Policies {
                policy: &policy,
                // They are the same before the first step.
                behaviour: (!updates.is_empty()).then_some(&behaviour),
                reference: reference.as_ref(),
            };
            let mean = sum(&step, &policies, &config, (threads, host), &mut measured)?;
            // Moves the policy: the parameters stand on its memory, or it is rounded from them.
            let taken = optimizer.step(&mut parameters, &mean, &spec.optimizer, when, host)?;
            if masters.is_some() {
                policy.round(&parameters);
            }
            updates.push(update::metrics(&taken));
        }
        gradients.extend(metrics(&config, &batches, &measured));
    }
    let join = |kind, of: &[Metrics]| joined(kind, &of.iter().collect::<Vec<_>>());
    let mut measured = join(StageKind::Gradient, &gradients);
    measured.extend(join(StageKind::Update, &updates));
    drop((batches, reference, behaviour));
    let trained = match policy.adapter() {
        Some(adapter) => Trained::Adapter(adapter.clone()),
        None => Trained::All(Box::new(masters.unwrap_or(policy))),
    };
    let artifacts = update::artifacts(files.clone(), (trained, parameters), optimizer, host)?;
    Ok(Outputs { artifacts, metrics: measured })
}

/// Whether all weights of a policy are trained that holds them in half precision.
fn needs_masters(policy: &Policy) -> bool {
    policy.adapter().is_none() && policy.placement().kind == Kind::BFloat16
}

/// Plans contain only valid combinations; a spec of another origin may not.
fn check(spec: &UpdatesSpec) -> Result<()> {
    gradient::check(&spec.estimator, &spec.sampler, spec.reference)?;
    if spec.shards.is_empty() {
        return Err(invalid("the updates of no shard: expected at least one"));
    }
    if spec.estimator.inner_updates == 0 {
        return Err(invalid("estimator.inner_updates = 0: expected at least 1"));
    }
    Ok(())
}

fn check_groups(spec: &UpdatesSpec, batches: &[Batch<'_>]) -> Result<()> {
    let parts = spec.estimator.accumulation_steps as usize;
    let groups: usize = batches.iter().map(Batch::groups).sum();
    if parts == 0 || !groups.is_multiple_of(parts) {
        return Err(invalid(format!(
            "estimator.accumulation_steps = {parts}: expected a divisor of the {groups} groups"
        )));
    }
    Ok(())
}

/// The samples of all shards; an error names the shard.
fn samples(spec: &UpdatesSpec, inputs: &Inputs) -> Result<Vec<Samples>> {
    let read = |(number, shard)| {
        Samples::read(shard, spec.policy, inputs).map_err(|error| match error {
            StageError::Data(text) => {
                StageError::Data(text.reworded(|text| format!("shard {number}: {text}")))
            }
            other => other,
        })
    };
    spec.shards.iter().copied().enumerate().map(read).collect()
}

/// A shard's part of an optimizer step.
struct Part<'a> {
    shard: usize,
    estimator: Estimator<'a>,
    /// The factor of its gradient.
    share: f32,
}

/// The optimizer steps of one inner update, each a sum over shards.
fn steps<'a>(
    spec: &UpdatesSpec,
    config: &EstimatorConfig,
    inner: u32,
    batches: &'a [Batch<'a>],
) -> Vec<Vec<Part<'a>>> {
    let seed = |shard: usize| {
        let shard = u32::try_from(shard).expect("shards are few");
        gradient::seed(spec.seed, spec.iteration, (shard, inner), config)
    };
    if config.step_every == StepEvery::Batch {
        let of_shard = |(shard, batch)| estimator(batch, config, seed(shard));
        let estimators: Vec<_> = batches.iter().enumerate().map(of_shard).collect();
        let total: f64 = estimators.iter().map(|estimator| estimator.mean_over).sum();
        let part = |(shard, estimator): (usize, Estimator<'a>)| {
            let share = update::share(estimator.mean_over, total);
            Part { shard, estimator, share }
        };
        return vec![estimators.into_iter().enumerate().map(part).collect()];
    }
    let parts = |step: Vec<Estimator<'a>>| {
        // Most steps read the shards of one micro-batch alone.
        let is_empty = step.iter().all(|estimator| estimator.samples == 0);
        let used = |&(shard, ref estimator): &(usize, Estimator<'_>)| {
            estimator.samples > 0 || (is_empty && shard == 0)
        };
        // The weights of these estimators have every mean.
        let part = |(shard, estimator)| Part { shard, estimator, share: 1.0 };
        step.into_iter().enumerate().filter(used).map(part).collect()
    };
    steps_by_sample(batches, config, seed).into_iter().map(parts).collect()
}

/// What the gradient stages of one inner update would have measured, one of each shard. Steps for every sample have a loss
/// and ratios of all shards together.
fn metrics(
    config: &EstimatorConfig,
    batches: &[Batch<'_>],
    measured: &[(Measured, usize)],
) -> Vec<Metrics> {
    let shards = batches.iter().zip(measured);
    if config.step_every == StepEvery::Batch {
        let of = |(batch, (sums, samples)): (_, &(Measured, usize))| {
            gradient::metrics(gradient::empty(batch), sums, *samples as f64)
        };
        return shards.map(of).collect();
    }
    let (mut sums, mut samples) = (Measured::default(), 0);
    for (of_shard, drawn) in measured {
        sums.add(of_shard);
        samples += drawn;
    }
    let empty = batches.iter().map(gradient::empty).sum();
    vec![gradient::metrics(empty, &sums, samples as f64 / batches.len() as f64)]
}

/// The gradient of a step. Adds what each shard measured, and its number of samples.
fn sum(
    step: &[Part<'_>],
    policies: &Policies<'_>,
    config: &EstimatorConfig,
    (threads, host): (&Threads, &Threads),
    measured: &mut [(Measured, usize)],
) -> Result<NamedTensors> {
    let mut sum = NamedTensors::new();
    for Part { shard, estimator, share } in step {
        let Estimate { gradient, measured: of_part } =
            accumulate(estimator, policies, config, threads)?;
        update::add_shard(&mut sum, &gradient, *share, host)?;
        let (sums, samples) = &mut measured[*shard];
        sums.add(&of_part);
        *samples += estimator.samples;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests;
