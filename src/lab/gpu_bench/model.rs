//! How fast a device computes a model of a given size, and how much of its memory it takes.
//!
//! Weights are synthetic. Everything is done once to warm up, then by the clock. Rows of one section follow one another in
//! one process, so memory in use, of which libtorch gives nothing back, is the most so far: what takes little comes
//! first.

#![expect(non_snake_case, reason = "shape letters at the end of tensor names are capitals")]

use agrpo_compute::estimator::{Batch, Estimate, Policies, Worth, accumulate, estimator};
use agrpo_compute::model::{ModelConfig, Placement, Policy, Queries};
use agrpo_compute::sampler::{Row, sample};
use agrpo_compute::{Device, Threads, trajectories::Trajectories};
use agrpo_spec::{
    Checkpointing, EstimatorConfig, EstimatorKind, LoraConfig, Precision, Sampler, Samples, Seed,
    StageError, Strata,
};
use serde::Serialize;
use tch::{Kind, Tensor, no_grad_guard};

use super::load::{Load, real};
use super::rows::{Rows, Stopwatch};

/// How often the clock measures; the median counts.
const TIMES: usize = 3;

/// Seconds of some arithmetic.
#[derive(Clone, Copy, Debug, Serialize)]
struct Figure {
    /// Of one time, the device waited for.
    seconds: f64,
    /// Its arithmetic, counted as `assumptions` say.
    flop: f64,
    /// Share of the peak; none where it is not known.
    share_of_peak: Option<f64>,
    /// The device's memory in use afterwards, in bytes; none where the driver does not say.
    memory: Option<u64>,
    /// Whether doing it twice gave the same bits; none where there is nothing to compare.
    #[serde(skip_serializing_if = "Option::is_none")]
    repeats: Option<bool>,
    /// Tokens a second of whole completions, or samples a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    per_second: Option<f64>,
}

/// What relates seconds to a machine.
struct Machine<'a> {
    peak: Option<f64>,
    memory: &'a dyn Fn() -> Option<u64>,
}

impl Machine<'_> {
    fn figure(&self, seconds: f64, flop: f64) -> Figure {
        let share_of_peak = self.peak.map(|peak| flop / seconds / peak);
        let memory = (self.memory)();
        Figure { seconds, flop, share_of_peak, memory, repeats: None, per_second: None }
    }
}

fn other_bits(figure: &Figure) -> Option<String> {
    (figure.repeats == Some(false)).then(|| "other bits at the second time".to_owned())
}

/// The model as it is trained: adapters as published, on every module.
pub(super) fn as_trained(policy: Policy) -> Result<Policy, StageError> {
    policy.with_new_adapter(&adapters(), Seed::new(3))
}

/// LoRA of rank 64 on all modules and the head: 176 million numbers of LLaDA-8B.
pub(super) fn adapters() -> LoraConfig {
    LoraConfig {
        rank: 64,
        alpha: real(64.0),
        targets: LoraConfig::MODULES.map(str::to_owned).into(),
        head: true,
        rslora: false,
        merge_for_sampling: false,
    }
}

/// Reports rows for a model's making, forward pass, sampled block and gradients; `memory` is the device's memory in use
/// in bytes and `peak` its products a second in FLOP, if they are known.
pub fn model(
    load: &Load,
    device: Device,
    memory: &dyn Fn() -> Option<u64>,
    peak: Option<f64>,
    rows: &mut Rows<'_>,
) {
    let machine = Machine { peak, memory };
    rows.add("product of large matrices", |watch| load.product(device, watch, &machine));
    let made = rows.add("make", |watch| {
        let (base, seconds) = watch.time(|| load.policy(device))?;
        let parameters = base.parameters().values().map(|p| p.numel() as u64).sum();
        let figure = machine.figure(seconds, 0.0);
        Ok(Made { parameters, seconds, memory: figure.memory, policy: as_trained(base)? })
    });
    let Some(Made { policy, .. }) = made else { return };
    let flop = f64::from(load.sequences) * load.flop(load.sampler.block_tokens);
    let bare = policy.without_adapter();
    for (name, policy) in [("forward", &policy), ("forward without adapters", &bare)] {
        rows.add(name, |watch| {
            let seconds = watch.median(TIMES, || load.forward(policy))?;
            Ok(machine.figure(seconds, flop))
        });
    }
    let (sampler, mut sampled) = (load.measured_sampler(), None);
    rows.add_checked(
        "rollout of a block",
        |watch| {
            let count = load.sequences as usize;
            let block = || sample(&policy, &load.rows(), &sampler, count, &Threads::one());
            let first = block()?;
            let (again, seconds) = watch.time(block)?;
            let tokens = load.sequences * load.measured_blocks * load.sampler.block_tokens;
            let repeats = Some(again == first);
            sampled = Some(first);
            let per_second = Some(f64::from(tokens) / seconds);
            Ok(Figure { repeats, per_second, ..machine.figure(seconds, load.rollout_flop()) })
        },
        other_bits,
    );
    // A gradient takes as long from synthetic trajectories.
    let trajectories = sampled.unwrap_or_else(|| load.arbitrary());
    for (name, checkpointing) in [("gradient, checkpointed", true), ("gradient", false)] {
        let gradient = |watch: &Stopwatch<'_>| {
            let compute = || load.differentiate(&policy, &trajectories, &sampler, checkpointing);
            let first = sums_of(&compute()?);
            let mut repeats = true;
            let seconds = watch.median(TIMES, || {
                repeats &= sums_of(&compute()?) == first;
                Ok(())
            })?;
            let flop = 2.0 * load.flop(load.tokens_of_step());
            let samples = f64::from(load.gradient_samples);
            let figure = machine.figure(seconds / samples, flop);
            Ok(Figure { repeats: Some(repeats), per_second: Some(samples / seconds), ..figure })
        };
        rows.add_checked(name, gradient, other_bits);
    }
}

/// A model in memory.
#[derive(Serialize)]
struct Made {
    parameters: u64,
    seconds: f64,
    memory: Option<u64>,
    #[serde(skip)]
    policy: Policy,
}

/// One number for each gradient, as bits: equal gradients have equal ones.
fn sums_of(estimate: &Estimate) -> Vec<u64> {
    let sum = |gradient: &Tensor| gradient.sum(Kind::Double).double_value(&[]).to_bits();
    estimate.gradient.values().map(sum).collect()
}

impl Load {
    pub(super) fn config(&self) -> ModelConfig {
        let v = i64::from(self.vocabulary);
        let length = i64::from(self.prompt_tokens + self.sampler.completion_tokens);
        ModelConfig::new(&self.model, v, v - 2, v - 1, length)
    }

    pub(super) fn policy(&self, device: Device) -> Result<Policy, StageError> {
        let precision = if self.half { Precision::Bf16 } else { Precision::F32 };
        let at = Placement::on(device, precision);
        Policy::synthetic(self.config(), self.model.init_std.get(), at)
    }

    /// What the device's libraries reach at best: a square product, twice the model's width.
    fn product(
        &self,
        device: Device,
        watch: &Stopwatch<'_>,
        machine: &Machine<'_>,
    ) -> Result<Figure, StageError> {
        let _no_grad = no_grad_guard();
        let precision = if self.half { Precision::Bf16 } else { Precision::F32 };
        let Placement { device, kind } = Placement::on(device, precision);
        let n = i64::from(2 * self.model.d_model);
        // Of ones or zeros, products take less power, and are faster.
        let x = Tensor::arange(n * n, (Kind::Double, device)).sin().to_kind(kind).view([n, n]);
        let seconds = watch.median(TIMES, || {
            (0..4).for_each(|_| drop(x.matmul(&x)));
            Ok(())
        })?;
        Ok(machine.figure(seconds, 4.0 * 2.0 * (n as f64).powi(3)))
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

    /// Trajectories of the measured blocks that no policy sampled: every step writes the positions from the left.
    fn arbitrary(&self) -> Trajectories {
        let (rows, sampler) = (self.rows(), self.measured_sampler());
        let completion = sampler.completion_tokens;
        let prompts = rows.iter().flat_map(|row| row.prompt.iter().copied()).collect();
        let cells = rows.len() * completion as usize;
        let of_cell = |of: fn(u32) -> i64| {
            let one = (0..completion).map(of).collect::<Vec<_>>();
            one.iter().copied().cycle().take(cells).collect::<Vec<i64>>()
        };
        let mask = i64::from(self.vocabulary) - 1;
        let mut all = Trajectories::masked(prompts, rows.len(), completion as usize, mask);
        all.completion_ids = of_cell(i64::from);
        let per_step = i64::from(self.tokens_of_step());
        all.unmask_steps = of_cell(i64::from).iter().map(|n| n / per_step).collect();
        let kept = |cell: usize| i64::try_from(cell).unwrap_or(0);
        let offsets = (0..=cells).map(kept).collect();
        all.kept =
            Some(agrpo_spec::trajectories::KeptSets { offsets, ids: all.completion_ids.clone() });
        all
    }

    /// Gradients of `gradient_samples` states, drawn from as many completions.
    pub(super) fn differentiate(
        &self,
        policy: &Policy,
        trajectories: &Trajectories,
        sampler: &Sampler,
        checkpointing: bool,
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
            checkpointing: if checkpointing { Checkpointing::Always } else { Checkpointing::Never },
            ..EstimatorConfig::plain(EstimatorKind::Agrpo)
        };
        let policies = Policies { policy, behaviour: None, reference: None };
        let estimator = estimator(&batch, &config, Seed::new(2));
        // A GPU computes one pass at a time.
        accumulate(&estimator, &policies, &config, &Threads::one())
    }
}
