//! Gradient: the policy gradient of one shard, accumulated over passes.

use std::collections::BTreeMap;

use agrpo_spec::{Artifact, GradientSpec, Inputs, Outputs, Purpose, Rewards, decode};
use tch::Tensor;

use crate::error::{Result, data, invalid};
use crate::estimator::{Batch, Measured, Policies, Worth, accumulate, estimator};
use crate::model::{Placement, Policy};
use crate::{device::Device, policy_cache::PolicyCache, tensors, trajectories::Trajectories};

/// The tensor beside the gradient in its file: the number that it is a mean over, one f64.
pub(crate) const MEAN_OVER: &str = "mean_over";

pub(crate) fn execute(
    spec: &GradientSpec,
    inputs: &Inputs,
    device: Device,
    cache: &PolicyCache,
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
    policy.require_grad();
    // Everything drawn for one update from one shard.
    let seed = spec
        .seed
        .child(Purpose::Iteration, u64::from(spec.iteration))
        .child(Purpose::Timestep, u64::from(spec.shard))
        .child(Purpose::Sample, u64::from(spec.inner));
    let estimator = estimator(&batch, &spec.estimator, seed);
    let measured = accumulate(&estimator, &policies, &spec.estimator)?;
    let mut gradient = policy.gradients();
    gradient.insert(MEAN_OVER.to_owned(), Tensor::from_slice(&[estimator.mean_over]));
    let artifact = Artifact::Blob(tensors::write(&gradient)?.into());
    Ok(Outputs {
        artifacts: BTreeMap::from([("gradient", artifact)]),
        metrics: metrics(&batch, &measured, estimator.samples),
    })
}

/// Plans make only valid combinations; a spec from elsewhere may not.
fn check_estimator(spec: &GradientSpec) -> Result<()> {
    spec.estimator.fits(&spec.sampler).map_err(|misfit| invalid(misfit.to_string()))?;
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
        ("loss".into(), measured.loss),
        ("kl".into(), measured.kl),
        ("clip_share".into(), share(measured.clipped_low + measured.clipped_high)),
        ("clip_share_low".into(), share(measured.clipped_low)),
        ("clip_share_high".into(), share(measured.clipped_high)),
        ("ratio_deviation".into(), measured.ratio_deviation),
        ("samples".into(), samples as f64),
        ("states".into(), measured.states),
        ("empty_completions".into(), empty as f64),
    ])
}

#[cfg(test)]
mod tests;
