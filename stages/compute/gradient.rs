//! Gradient: the policy gradient of one shard, summed over passes. Refuses trajectories that another policy
//! sampled. Takes no optimizer step.

use std::collections::BTreeMap;

use agrpo_spec::{
    Artifact, GradientSpec, Inputs, Message, Outputs, Purpose, Rewards, decode, metrics,
};
use tch::Tensor;

use crate::error::{Result, data, invalid};
use crate::estimator::{Batch, Estimate, Measured, Policies, Worth, accumulate, estimator};
use crate::model::{Placement, Policy};
use crate::{context::Context, tensors, trajectories::Trajectories};

/// The tensor beside the gradient in its file: the number that it is a mean over, one f64.
pub(crate) const MEAN_OVER: &str = "mean_over";

pub(crate) fn execute(
    spec: &GradientSpec,
    inputs: &Inputs,
    Context { device, cache, threads, .. }: Context<'_>,
) -> Result<Outputs> {
    check_estimator(spec)?;
    let trajectories = Trajectories::from_bytes(inputs.blob(spec.trajectories)?)?;
    check_origin(spec, &trajectories)?;
    let rewards: Rewards =
        decode(inputs.blob(spec.rewards)?).ok_or_else(|| data("the rewards cannot be read"))?;
    let worths: Vec<Worth> = rewards.rows.iter().map(Worth::from).collect();
    let files = inputs.folder(spec.policy)?;
    let at = Placement::on(device, spec.precision);
    let policy = cache.policy(spec.policy, false, at, || Policy::from_folder_at(files, at))?;
    let policy = policy.ready_to_train(spec.lora.as_ref(), spec.seed)?;
    let load = |digest| policy.beside(files, inputs.folder(digest)?);
    let group = spec.group as usize;
    let batch = Batch::new(&trajectories, &worths, group, &spec.sampler, policy.config())?;
    let behaviour = (spec.behaviour != spec.policy).then(|| load(spec.behaviour)).transpose()?;
    let reference = spec.reference.map(load).transpose()?;
    let policies =
        Policies { policy: &policy, behaviour: behaviour.as_ref(), reference: reference.as_ref() };
    // The seed of all draws for one update from one shard.
    let seed = spec
        .seed
        .child(Purpose::Iteration, u64::from(spec.iteration))
        .child(Purpose::Timestep, u64::from(spec.shard))
        .child(Purpose::Sample, u64::from(spec.inner));
    let estimator = estimator(&batch, &spec.estimator, seed);
    let Estimate { mut gradient, measured } =
        accumulate(&estimator, &policies, &spec.estimator, threads)?;
    gradient.insert(MEAN_OVER.to_owned(), Tensor::from_slice(&[estimator.mean_over]));
    let artifact = Artifact::Blob(tensors::write(&gradient)?.into());
    Ok(Outputs {
        artifacts: BTreeMap::from([("gradient", artifact)]),
        metrics: metrics(&batch, &measured, estimator.samples),
    })
}

/// Plans contain only valid combinations; a spec of another origin may not.
fn check_estimator(spec: &GradientSpec) -> Result<()> {
    spec.estimator.check_sampler(&spec.sampler).map_err(|error| invalid(Message::of(error)))?;
    let kl = spec.estimator.kl;
    if kl.get() > 0.0 && spec.reference.is_none() {
        return Err(invalid(format!("estimator.kl = {kl}: expected a reference policy beside it")));
    }
    Ok(())
}

fn check_origin(spec: &GradientSpec, trajectories: &Trajectories) -> Result<()> {
    match trajectories.policy {
        Some(policy) if policy == spec.behaviour => Ok(()),
        Some(policy) => Err(data(format!(
            "the trajectories were sampled by the policy {policy}, expected {}",
            spec.behaviour
        ))),
        None => Err(data("the trajectories do not say which policy sampled them")),
    }
}

fn metrics(batch: &Batch<'_>, measured: &Measured, samples: usize) -> BTreeMap<String, f64> {
    let share = |part: f64| if measured.factors > 0.0 { part / measured.factors } else { 0.0 };
    let empty = (0..batch.rows()).filter(|&row| batch.horizon(row) == 0).count();
    BTreeMap::from([
        (metrics::LOSS.into(), measured.loss),
        (metrics::KL.into(), measured.kl),
        (metrics::CLIP_SHARE.into(), share(measured.clipped_low + measured.clipped_high)),
        (metrics::CLIP_SHARE_LOW.into(), share(measured.clipped_low)),
        (metrics::CLIP_SHARE_HIGH.into(), share(measured.clipped_high)),
        (metrics::RATIO_DEVIATION.into(), measured.ratio_deviation),
        (metrics::SAMPLES.into(), samples as f64),
        (metrics::STATES.into(), measured.states),
        (metrics::EMPTY_COMPLETIONS.into(), empty as f64),
    ])
}

#[cfg(test)]
mod tests;
