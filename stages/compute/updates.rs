//! Updates: all inner updates of an iteration in one stage, from the trajectories and rewards of all its shards. What
//! it leaves is what the gradient and update stages would leave one after another, to the byte. Refuses trajectories
//! that another policy sampled. Stores nothing between.
//!
//! Passes are computed on the device, the optimizer's steps on the host. In memory are the policy that sampled, the
//! one that moves, the reference if there is a KL term, the optimizer's moments, the mean of the gradients so far, and
//! one shard's gradient.

use agrpo_spec::memory::GradientSizes;
use agrpo_spec::metrics::{Metrics, joined};
use agrpo_spec::{EstimatorConfig, Inputs, Outputs, StageError, StageKind, UpdatesSpec};

use crate::context::Context;
use crate::error::{Result, invalid};
use crate::estimator::{Batch, Estimate, Policies, accumulate, estimator};
use crate::gradient::{self, Samples};
use crate::model::Placement;
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
    let policy = behaviour.handles().ready_to_train(spec.lora.as_ref(), spec.seed)?.apart();
    let load = |digest| policy.beside(files, inputs.folder(digest)?);
    let reference = spec.reference.map(load).transpose()?;
    let batches = (0..)
        .zip(&samples)
        .map(|(shard, of)| of.batch((shard, spec.group), &spec.sampler, policy.config()))
        .collect::<Result<Vec<_>>>()?;
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
    let mut parameters = policy.parameters();
    let mut optimizer = update::optimizer(spec.optimizer_state, inputs, &parameters, host)?;
    let (mut gradients, mut updates) = (vec![], vec![]);
    let when = (spec.iteration, spec.iterations);
    for inner in 1..=spec.estimator.inner_updates {
        let policies = Policies {
            policy: &policy,
            // They are the same before the first update.
            behaviour: (inner > 1).then_some(&behaviour),
            reference: reference.as_ref(),
        };
        let mean = mean_gradient(
            (spec, &config),
            inner,
            &batches,
            &policies,
            (threads, host),
            &mut gradients,
        )?;
        // Moves the policy: the parameters stand on its memory.
        let taken = optimizer.step(&mut parameters, &mean, &spec.optimizer, when, host)?;
        updates.push(update::metrics(&taken));
    }
    let metrics = |kind, of: &[Metrics]| joined(kind, &of.iter().collect::<Vec<_>>());
    let mut measured = metrics(StageKind::Gradient, &gradients);
    measured.extend(metrics(StageKind::Update, &updates));
    drop((batches, reference, behaviour));
    let trained = match policy.adapter() {
        Some(adapter) => Trained::Adapter(adapter.clone()),
        None => Trained::All(policy),
    };
    let artifacts = update::artifacts(files.clone(), (trained, parameters), optimizer, host)?;
    Ok(Outputs { artifacts, metrics: measured })
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

/// The mean of all shards' gradients for one update, and what each of them measured.
fn mean_gradient(
    (spec, config): (&UpdatesSpec, &EstimatorConfig),
    inner: u32,
    batches: &[Batch<'_>],
    policies: &Policies<'_>,
    (threads, host): (&Threads, &Threads),
    measured: &mut Vec<Metrics>,
) -> Result<NamedTensors> {
    let seed = |shard| gradient::seed(spec.seed, spec.iteration, (shard, inner), config);
    let of_shard = |(shard, batch)| estimator(batch, config, seed(shard));
    let estimators: Vec<_> = (0..).zip(batches).map(of_shard).collect();
    let total: f64 = estimators.iter().map(|estimator| estimator.mean_over).sum();
    let mut mean = NamedTensors::new();
    for (estimator, batch) in estimators.iter().zip(batches) {
        let Estimate { gradient, measured: sums } =
            accumulate(estimator, policies, config, threads)?;
        measured.push(gradient::metrics(batch, &sums, estimator.samples));
        let share = update::share(estimator.mean_over, total);
        update::add_shard(&mut mean, &gradient, share, host)?;
    }
    Ok(mean)
}

#[cfg(test)]
mod tests;
