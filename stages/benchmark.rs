//! What a device is good for: whether it computes what the processor computes, and how fast it samples
//! and differentiates a model of a given size.
//!
//! Weights are arbitrary, and the clock is the caller's: nothing here is a stage, and nothing is stored.
//! Every measurement is made twice, first to warm up, then by the clock; that both gave the same bits is
//! part of the answer. No peak of any device is known here.
//!
//! Arithmetic is counted as the algorithm asks for it: of a forward pass over L tokens with logits
//! at Q of them,
//! ```text
//! FLOP = n_layers (2 (4 D^2 + 3 D M) + 4 L D) L  +  2 Q D V
//! ```
//! and of a gradient sample two of them, as adapters are trained over a frozen base. What the program saves by not computing what nobody asks for
//! counts as if it had been computed.

use agrpo_spec::memory::{PassSizes, Sizes};
use agrpo_spec::{
    Cache, EstimatorConfig, EstimatorKind, Files, LoraConfig, ModelShape, PositionRule, Purpose,
    Real, Sampler, Samples, Seed, StageError, Strata,
};
use serde::Serialize;
use tch::{Kind, Tensor, no_grad_guard};

use crate::device::Device;
use crate::estimator::{Agrpo, Batch, Policies, Worth, accumulate};
use crate::model::{ModelConfig, Policy, Queries};
use crate::sampler::{Row, sample};
use crate::trajectories::Trajectories;

/// Logits of one model on two devices.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Parity {
    /// The largest difference of two logits.
    pub max_abs_difference: f64,
    /// The largest logit, for comparison.
    pub max_abs_logit: f64,
    /// How many were compared.
    pub logits: usize,
}

/// What is measured, and at which size.
#[derive(Clone, Debug, Serialize)]
pub struct Load {
    /// The model.
    pub model: ModelShape,
    /// Rows of the embedding and of the head, V.
    pub vocabulary: u32,
    /// Whether weights are bfloat16, else f32.
    pub half: bool,
    /// Completions sampled side by side, all in one forward pass.
    pub sequences: u32,
    /// Tokens of a prompt.
    pub prompt_tokens: u32,
    /// How completions are sampled.
    pub sampler: Sampler,
    /// Blocks that are sampled by the clock; the earlier ones are given, so that sequences are as long as
    /// they would be. All blocks take equally long.
    pub measured_blocks: u32,
    /// States that are differentiated by the clock.
    pub gradient_samples: u32,
    /// States of one forward and backward pass.
    pub gradient_states: u32,
}

/// What was measured.
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
    /// The device's memory in use after making the weights; none where it is not told.
    pub memory_after_make: Option<u64>,
    /// And after sampling. libtorch gives nothing back, so this is the most that was used.
    pub memory_after_rollout: Option<u64>,
    /// And after differentiating.
    pub memory_after_gradient: Option<u64>,
}

/// The caller's clock in seconds, and the device's memory in use in bytes.
pub struct Gauges<'a> {
    /// Seconds since some moment.
    pub clock: &'a dyn Fn() -> f64,
    /// Bytes, if anybody knows.
    pub memory: &'a dyn Fn() -> Option<u64>,
}

/// Compares the logits of a policy on a device with those on the processor, for token ids that cover the
/// vocabulary.
pub fn parity(files: &Files, device: Device) -> Result<Parity, StageError> {
    const ROWS: i64 = 4;
    let _no_grad = no_grad_guard();
    let policy = Policy::from_folder(files)?;
    let v = policy.config().embedding_size;
    let ids: Vec<i64> = (0..ROWS * 48).map(|n| n * 7 % v).collect();
    let ids_BL = Tensor::from_slice(&ids).view([ROWS, -1]);
    let logits = |policy: &Policy| {
        let hidden = policy.hidden(&ids_BL.to_device(policy.device()), &Queries::All)?;
        Ok::<_, StageError>(policy.head(&hidden).to_device(tch::Device::Cpu))
    };
    let expected = logits(&policy)?;
    let found = logits(&policy.on(device))?;
    Ok(Parity {
        max_abs_difference: (&found - &expected).abs().max().double_value(&[]),
        max_abs_logit: expected.abs().max().double_value(&[]),
        logits: expected.numel(),
    })
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

/// Makes the model, samples with it, and differentiates it.
pub fn measure(load: &Load, device: Device, gauges: &Gauges<'_>) -> Result<Figures, StageError> {
    let Gauges { clock, memory } = gauges;
    let timed = |work: &mut dyn FnMut() -> Result<(), StageError>| {
        let start = clock();
        work().map(|()| clock() - start)
    };
    let start = clock();
    let base = load.policy(device)?;
    let parameters = base.parameters().values().map(|p| p.numel() as u64).sum();
    let policy = as_trained(base)?;
    load.forward(&policy)?;
    let make_seconds = clock() - start;
    let memory_after_make = memory();
    let forward_seconds = timed(&mut || load.forward(&policy))?;

    let (rows, sampler) = (load.rows(), load.measured_sampler());
    let sequences = load.sequences as usize;
    let first = sample(&policy, &rows, &sampler, sequences)?;
    let mut again = None;
    let rollout_seconds = timed(&mut || {
        again = Some(sample(&policy, &rows, &sampler, sequences)?);
        Ok(())
    })?;
    let memory_after_rollout = memory();

    policy.require_grad();
    load.differentiate(&policy, &first, &sampler)?;
    let sums = sums_of_gradients(&policy);
    let gradient_seconds = timed(&mut || {
        load.differentiate(&policy, &first, &sampler)?;
        // Reading a number waits for everything before it.
        if let Some((_, gradient)) = policy.gradients().pop_first() {
            gradient.sum(Kind::Double).double_value(&[]);
        }
        Ok(())
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
        rollout_repeats: again.is_some_and(|again| again == first),
        gradient_repeats: sums_of_gradients(&policy) == sums,
        memory_after_make,
        memory_after_rollout,
        memory_after_gradient: memory(),
    })
}

/// One number for each gradient, as bits: equal gradients have equal ones.
fn sums_of_gradients(policy: &Policy) -> Vec<u64> {
    let _no_grad = no_grad_guard();
    let sum = |gradient: &Tensor| gradient.sum(Kind::Double).double_value(&[]).to_bits();
    policy.gradients().values().map(sum).collect()
}

fn real(value: f64) -> Real {
    Real::new(value).expect("a constant is finite")
}

impl Load {
    /// LLaDA-8B (Nie et al., arXiv 2502.09992) in bfloat16, with adapters as published, sampled as in
    /// published evaluations but with the rollouts' filter.
    pub fn llada_8b() -> Self {
        Self {
            model: ModelShape {
                d_model: 4096,
                n_layers: 32,
                n_heads: 32,
                mlp_hidden_size: 12_288,
                rope_theta: real(500_000.0),
                rms_norm_eps: real(1e-5),
                init_std: real(0.02),
            },
            vocabulary: 126_464,
            half: true,
            sequences: 8,
            prompt_tokens: 256,
            sampler: Sampler {
                completion_tokens: 256,
                block_tokens: 32,
                steps: 128,
                temperature: real(0.6),
                top_k: 150,
                top_p: real(0.99),
                position: PositionRule::LowConfidence,
                guidance: real(0.0),
                cache: Cache::None,
                threshold: None,
            },
            measured_blocks: 1,
            gradient_samples: 4,
            gradient_states: 1,
        }
    }

    /// The same at a size that a processor computes in a moment, in f32.
    pub fn tiny() -> Self {
        let whole = Self::llada_8b();
        Self {
            model: ModelShape {
                d_model: 32,
                n_layers: 2,
                n_heads: 2,
                mlp_hidden_size: 64,
                ..whole.model
            },
            vocabulary: 512,
            half: false,
            sequences: 4,
            prompt_tokens: 8,
            sampler: Sampler { completion_tokens: 16, block_tokens: 4, steps: 8, ..whole.sampler },
            gradient_samples: 2,
            ..whole
        }
    }

    fn blocks(&self) -> u32 {
        self.sampler.completion_tokens / self.sampler.block_tokens
    }

    fn tokens_of_step(&self) -> u32 {
        self.sampler.completion_tokens / self.sampler.steps
    }

    /// The sampler of the measured blocks alone.
    fn measured_sampler(&self) -> Sampler {
        let of_block = self.sampler.steps / self.blocks();
        Sampler {
            completion_tokens: self.measured_blocks * self.sampler.block_tokens,
            steps: self.measured_blocks * of_block,
            ..self.sampler.clone()
        }
    }

    fn policy(&self, device: Device) -> Result<Policy, StageError> {
        let v = i64::from(self.vocabulary);
        let length = i64::from(self.prompt_tokens + self.sampler.completion_tokens);
        let config = ModelConfig::new(&self.model, v, v - 2, v - 1, length);
        let kind = if self.half { Kind::BFloat16 } else { Kind::Float };
        Policy::patterned(config, self.model.init_std.get(), (kind, device.of_tch()))
    }

    /// Prompts, and the blocks before the measured ones; all differ, so no two states are equal.
    fn rows(&self) -> Vec<Row> {
        let given = (self.blocks() - self.measured_blocks) * self.sampler.block_tokens;
        let row = |n: u32| {
            let seed = Seed::new(1).child(Purpose::Sample, n.into());
            let bound = u64::from(self.vocabulary - 2);
            let token = |at| i64::try_from(seed.below(bound, at, 0)).expect("below a u32");
            Row { prompt: (0..self.prompt_tokens + given).map(token).collect(), seed }
        };
        (0..self.sequences).map(row).collect()
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
    ) -> Result<(), StageError> {
        policy.zero_grad();
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
        let estimator = Agrpo::new(&batch, &config, Seed::new(2));
        accumulate(&estimator, &policies, &config).map(drop)
    }

    /// Of one forward pass over one sequence.
    fn flop(&self, queried: u32) -> f64 {
        let length = u64::from(self.prompt_tokens + self.sampler.completion_tokens);
        let pass = PassSizes { sequences: 1, length, queried: queried.into() };
        Sizes::new(&self.model, self.vocabulary.into()).forward_flops(&pass)
    }

    /// Of the measured steps of all sequences: each has logits at the block's masked positions.
    fn rollout_flop(&self) -> f64 {
        let of_step = self.tokens_of_step();
        let steps = self.sampler.block_tokens / of_step;
        let block: f64 =
            (0..steps).map(|step| self.flop(self.sampler.block_tokens - step * of_step)).sum();
        f64::from(self.sequences) * f64::from(self.measured_blocks) * block
    }
}

impl std::fmt::Debug for Gauges<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gauges").finish_non_exhaustive()
    }
}
