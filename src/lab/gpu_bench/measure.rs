//! How fast a device samples and differentiates a model of a given size.
//!
//! Weights are synthetic. Everything is done twice, first to warm up, then by the caller's clock; whether both gave
//! the same bits is part of the answer. Stores nothing.

#![expect(non_snake_case, reason = "shape letters at the end of tensor names are capitals")]

use agrpo_compute::estimator::{Batch, Estimate, Policies, Worth, accumulate, estimator};
use agrpo_compute::model::{ModelConfig, Placement, Policy, Queries};
use agrpo_compute::sampler::{Row, sample};
use agrpo_compute::{Device, Threads, trajectories::Trajectories};
use agrpo_spec::{
    EstimatorConfig, EstimatorKind, LoraConfig, Precision, Sampler, Samples, Seed, StageError,
    Strata,
};
use serde::Serialize;
use tch::{Kind, Tensor, no_grad_guard};

use super::load::{Load, real};
use crate::timed;

/// The measurements.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Figures {
    /// Numbers in the model.
    pub parameters: u64,
    /// Making the weights on the device.
    pub make_seconds: f64,
    /// One forward pass of all sequences, with logits at one block of each.
    pub forward_seconds: f64,
    /// Its arithmetic.
    pub forward_flop: f64,
    /// Sampling the measured blocks of all completions, choosing of tokens on the host included.
    pub rollout_seconds: f64,
    /// Its arithmetic.
    pub rollout_flop: f64,
    /// Steps that were measured.
    pub rollout_steps: u32,
    /// Tokens of all completions by the seconds of all blocks, those of the measured ones multiplied.
    pub rollout_tokens_per_second: f64,
    /// A forward and backward pass over one state.
    pub gradient_seconds_per_sample: f64,
    /// Its arithmetic.
    pub gradient_flop_per_sample: f64,
    /// Whether sampling twice gave the same tokens and the same log-probabilities, to the bit.
    pub rollout_repeats: bool,
    /// Whether differentiating twice gave the same sums of gradients, to the bit.
    pub gradient_repeats: bool,
    /// The device's memory in use after making the weights; none where the driver does not report it.
    pub memory_after_make: Option<u64>,
    /// And after sampling. libtorch gives nothing back, so this is the most that was used.
    pub memory_after_rollout: Option<u64>,
    /// And after differentiating.
    pub memory_after_gradient: Option<u64>,
}

/// The model as it is trained: adapters as published, on every module.
fn as_trained(policy: Policy) -> Result<Policy, StageError> {
    let adapters = LoraConfig {
        rank: 64,
        alpha: real(64.0),
        targets: LoraConfig::MODULES.map(str::to_owned).into(),
        head: true,
        rslora: false,
        merge_for_sampling: false,
    };
    policy.with_new_adapter(&adapters, Seed::new(3))
}

/// Makes the model, samples with it, and differentiates it; `memory` is the device's memory in use in bytes, if
/// known.
pub fn measure(
    load: &Load,
    device: Device,
    clock: &dyn Fn() -> f64,
    memory: &dyn Fn() -> Option<u64>,
) -> Result<Figures, StageError> {
    let ((policy, parameters), make_seconds) = timed(clock, || {
        let base = load.policy(device)?;
        let parameters = base.parameters().values().map(|p| p.numel() as u64).sum();
        let policy = as_trained(base)?;
        load.forward(&policy)?;
        Ok((policy, parameters))
    })?;
    let memory_after_make = memory();
    let ((), forward_seconds) = timed(clock, || load.forward(&policy))?;

    let (rows, sampler) = (load.rows(), load.measured_sampler());
    let sequences = load.sequences as usize;
    let first = sample(&policy, &rows, &sampler, sequences, &Threads::one())?;
    let (again, rollout_seconds) =
        timed(clock, || sample(&policy, &rows, &sampler, sequences, &Threads::one()))?;
    let memory_after_rollout = memory();

    let sums = sums_of(&load.differentiate(&policy, &first, &sampler)?);
    let (again_sums, gradient_seconds) = timed(clock, || {
        // Reading the numbers waits for everything before them.
        Ok(sums_of(&load.differentiate(&policy, &first, &sampler)?))
    })?;
    let blocks = f64::from(load.blocks()) / f64::from(load.measured_blocks);
    let tokens = f64::from(load.sequences) * f64::from(load.sampler.completion_tokens);
    Ok(Figures {
        parameters,
        make_seconds,
        forward_seconds,
        forward_flop: f64::from(load.sequences) * load.flop(load.sampler.block_tokens),
        rollout_seconds,
        rollout_flop: load.rollout_flop(),
        rollout_steps: sampler.steps,
        rollout_tokens_per_second: tokens / (rollout_seconds * blocks),
        gradient_seconds_per_sample: gradient_seconds / f64::from(load.gradient_samples),
        gradient_flop_per_sample: 2.0 * load.flop(load.tokens_of_step()),
        rollout_repeats: again == first,
        gradient_repeats: again_sums == sums,
        memory_after_make,
        memory_after_rollout,
        memory_after_gradient: memory(),
    })
}

/// One number for each gradient, as bits: equal gradients have equal ones.
fn sums_of(estimate: &Estimate) -> Vec<u64> {
    let sum = |gradient: &Tensor| gradient.sum(Kind::Double).double_value(&[]).to_bits();
    estimate.gradient.values().map(sum).collect()
}

impl Load {
    fn policy(&self, device: Device) -> Result<Policy, StageError> {
        let v = i64::from(self.vocabulary);
        let length = i64::from(self.prompt_tokens + self.sampler.completion_tokens);
        let config = ModelConfig::new(&self.model, v, v - 2, v - 1, length);
        let precision = if self.half { Precision::Bf16 } else { Precision::F32 };
        let at = Placement::on(device, precision);
        Policy::synthetic(config, self.model.init_std.get(), at)
    }

    /// One pass over all sequences, waited for.
    fn forward(&self, policy: &Policy) -> Result<(), StageError> {
        let _no_grad = no_grad_guard();
        let (len, mask) = (i64::from(self.sampler.block_tokens), policy.config().mask_token_id);
        let rows = self.rows();
        let measured = i64::from(self.measured_blocks) * len;
        let of_row = |row: &Row| {
            let masked = std::iter::repeat_n(mask, usize::try_from(measured).unwrap_or(0));
            row.prompt.iter().copied().chain(masked).collect::<Vec<_>>()
        };
        let ids: Vec<i64> = rows.iter().flat_map(of_row).collect();
        let ids_BL = Tensor::from_slice(&ids).view([i64::from(self.sequences), -1]);
        let start = ids_BL.size()[1] - measured;
        let ids_BL = ids_BL.to_device(policy.device());
        let hidden = policy.hidden(&ids_BL, &Queries::Range { start, len })?;
        policy.head(&hidden).max().double_value(&[]);
        Ok(())
    }

    /// Gradients of `gradient_samples` states, drawn from as many completions.
    fn differentiate(
        &self,
        policy: &Policy,
        trajectories: &Trajectories,
        sampler: &Sampler,
    ) -> Result<Estimate, StageError> {
        // A completion without an advantage is not looked at.
        let worth = |row: u32| {
            let sign = if row.is_multiple_of(2) { 1.0 } else { -1.0 };
            let advantage = if row < self.gradient_samples { sign } else { 0.0 };
            Worth { advantage, counted: true }
        };
        let worths: Vec<_> = (0..self.sequences).map(worth).collect();
        let batch = Batch::new(trajectories, &worths, 1, sampler, policy.config())?;
        let config = EstimatorConfig {
            k: Samples::Count(1),
            strata: Strata::Shard,
            micro_batch: self.gradient_states,
            checkpointing: true,
            ..EstimatorConfig::plain(EstimatorKind::Agrpo)
        };
        let policies = Policies { policy, behaviour: None, reference: None };
        let estimator = estimator(&batch, &config, Seed::new(2));
        // A GPU computes one pass at a time.
        accumulate(&estimator, &policies, &config, &Threads::one())
    }
}
