//! Gradient: the Monte Carlo policy gradient of one shard, accumulated over micro-batches.

use std::collections::BTreeMap;

use agrpo_spec::{
    Artifact, EstimatorKind, GradientSpec, Inputs, Outputs, Purpose, StageError, StepWeights,
    decode,
};

use crate::error::data;
use crate::estimator::agrpo::{self, Measured, Surrogate};
use crate::estimator::timesteps::{self, Timesteps};
use crate::model::Policy;
use crate::reward::Rewards;
use crate::tensor_file;
use crate::trajectories::Trajectories;

pub(crate) fn execute(spec: &GradientSpec, inputs: &Inputs) -> Result<Outputs, StageError> {
    let policy = Policy::from_folder(inputs.folder(spec.policy)?)?;
    let trajectories = Trajectories::from_bytes(inputs.blob(spec.trajectories)?)?;
    let rewards: Rewards =
        decode(inputs.blob(spec.rewards)?).ok_or_else(|| data("the rewards cannot be read"))?;
    let advantages: Vec<f64> = rewards.rows.iter().map(|row| row.advantage).collect();
    let (measured, samples) = accumulate(spec, &policy, &trajectories, &advantages)?;
    let artifact = Artifact::Blob(tensor_file::write(&policy.gradients())?);
    Ok(Outputs {
        artifacts: BTreeMap::from([("gradient", artifact)]),
        metrics: metrics(&measured, samples),
    })
}

/// Leaves the gradient of the shard's mean loss in the policy. Answers with what was measured and how
/// many Monte Carlo samples there were.
fn accumulate(
    spec: &GradientSpec,
    policy: &Policy,
    trajectories: &Trajectories,
    advantages: &[f64],
) -> Result<(Measured, usize), StageError> {
    if advantages.len() != trajectories.rows {
        let (rows, count) = (trajectories.rows, advantages.len());
        return Err(data(format!("{count} rewards do not fit {rows} trajectories")));
    }
    policy.require_grad();
    let eos = policy.config().eos_token_id;
    let horizons: Vec<u32> =
        (0..trajectories.rows).map(|row| trajectories.horizon(row, eos)).collect();
    let moving: Vec<usize> =
        (0..trajectories.rows).filter(|&row| advantages[row] != 0.0 && horizons[row] > 0).collect();
    let config = &spec.estimator;
    let surrogate = Surrogate {
        clip_low: config.clip_low.get(),
        clip_high: config.clip_high.get(),
        temperature: spec.temperature.get(),
    };
    #[expect(clippy::cast_precision_loss, reason = "counts of completions are small")]
    let scale = 1.0 / (f64::from(config.k) * trajectories.rows as f64);
    let of_moving: Vec<u32> = moving.iter().map(|&row| horizons[row]).collect();
    let timesteps = draw(spec, &of_moving);
    let advantages: Vec<f64> = moving.iter().map(|&row| advantages[row]).collect();
    let mask = policy.config().mask_token_id;
    let micro_batch = config.micro_batch as usize;
    let passes = match config.kind {
        EstimatorKind::Agrpo => {
            agrpo::passes(trajectories, &moving, &advantages, &timesteps, mask, micro_batch)
        }
    };
    let mut total = Measured::default();
    for pass in passes {
        let (loss, measured) = pass.loss(policy, surrogate, scale)?;
        loss.backward();
        total.add(&measured);
    }
    Ok((total, timesteps.steps.len()))
}

fn draw(spec: &GradientSpec, horizons: &[u32]) -> Timesteps {
    let seed = spec
        .seed
        .child(Purpose::Iteration, u64::from(spec.iteration))
        .child(Purpose::Timestep, u64::from(spec.shard));
    let (k, stratified) = (spec.estimator.k as usize, spec.estimator.stratified);
    match spec.estimator.step_weights {
        StepWeights::Uniform => timesteps::uniform(horizons, k, stratified, seed),
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of samples are small")]
fn metrics(measured: &Measured, samples: usize) -> BTreeMap<String, f64> {
    let clip_share = if measured.tokens > 0.0 { measured.clipped / measured.tokens } else { 0.0 };
    BTreeMap::from([
        ("loss".into(), measured.loss),
        ("clip_share".into(), clip_share),
        ("ratio_deviation".into(), measured.ratio_deviation),
        ("samples".into(), samples as f64),
        ("states".into(), measured.states),
    ])
}
