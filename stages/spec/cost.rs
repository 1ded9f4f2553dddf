//! Estimates a run's cost before anything is computed: operations, bytes, and seconds at given [`Rates`].
//!
//! ```text
//! block(t, q)   = t (4 D A + 4 D C + 6 D M) + 4 t L A    operations of t tokens that attend to L
//! pass(t, q)    = (n - 1) block(t) + 4 D C t + (block(q) - 4 D C q) + 2 q V D
//! rollout       = sum over steps of  states x pass       gradient = states x (pass (1 + back) + other policies)
//! fine-tuning   = batch x steps x pass x 3               update   = T (S join + step) and hashes
//! ```
//! A multiplication and an addition count as two operations. The last block and the head compute the q queried positions
//! alone, keys and values apart (`model/llada.rs`). `back` is 1 with adapters, whose base needs no gradient, else 2;
//! checkpointing adds 1, since it computes every block again. Completions of a group begin alike; later states are
//! counted as if all differed, all completions as if they had an advantage, and models that attend in blocks as if they
//! attended to everything, of which they attend to about half: these are upper limits, which small tasks stay far below.
//! `memory.rs` explains the letters. Measures nothing.

mod chain;
mod rates;
mod work;

use crate::memory::Workload;
use crate::run::{EstimatorConfig, EstimatorKind, Run, RunConfig, Sampler, Samples};
use crate::stage::StageKind;

pub use chain::{Chain, Machine};
pub use rates::{Choice, Rates};
use work::{Asked, Work};

/// What one stage of a kind costs, and how many there are.
#[derive(Clone, Debug, PartialEq)]
pub struct StageCost {
    /// Which kind.
    pub kind: StageKind,
    /// Stages of that kind in the whole run.
    pub stages: u64,
    /// Floating-point operations of one stage.
    pub flops: f64,
    /// Bytes that one stage writes to the store, with the largest possible kept sets.
    pub bytes: u64,
    /// What one stage spends its time on, one after another.
    pub parts: Vec<TimePart>,
}

/// A part of a stage's time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TimePart {
    /// What takes them.
    pub name: &'static str,
    /// How many, of one thread or GPU.
    pub one: f64,
    /// Who shares them.
    pub by: By,
}

/// Who computes a part of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The stage's threads, or its GPU.
    Device,
    /// The threads of the host; a GPU waits.
    Host,
    /// Links and disks: more threads make it no faster.
    One,
    /// The same, while the stage's threads or GPU may compute the next stage.
    After,
}

/// What a stage is computed on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Places {
    /// Its threads; 1 for a GPU.
    pub device: f64,
    /// Threads of the host for what it computes itself.
    pub host: f64,
}

impl StageCost {
    /// By the clock.
    pub fn seconds(&self, on: Places) -> f64 {
        self.parts.iter().map(|part| part.seconds(on)).sum()
    }
}

impl StageCost {
    /// Seconds of what comes after the stage's own computing.
    fn after(&self) -> f64 {
        self.parts.iter().filter(|part| part.by == By::After).map(|part| part.one).sum()
    }
}

impl TimePart {
    fn new(name: &'static str, by: By, one: f64) -> Self {
        Self { name, one, by }
    }

    /// By the clock.
    pub fn seconds(&self, on: Places) -> f64 {
        match self.by {
            By::Device => self.one / on.device,
            By::Host => self.one / on.host,
            By::One | By::After => self.one,
        }
    }
}

impl Workload {
    /// The costs of a run's stages, in the order of the chain.
    pub fn costs(&self, run: &Run, rates: &Rates) -> Vec<StageCost> {
        let config = run.config();
        let (iterations, shards) =
            (u64::from(config.training.iterations), u64::from(config.rollout.shards));
        let inner = u64::from(config.estimator.inner_updates);
        let (updates, fused) = match config.estimator.fused_updates {
            false => (iterations * inner, 0),
            true => (0, iterations),
        };
        let evaluations = (0..=config.training.iterations).filter(|&i| run.is_evaluated(i)).count();
        let evaluations = evaluations as u64 * u64::from(config.evaluation_shards());
        let stages = |kind| match kind {
            StageKind::Sft => run.sft_chunks().into(),
            StageKind::Rollout | StageKind::Reward => iterations * shards,
            StageKind::Gradient => updates * shards,
            StageKind::Update => updates,
            StageKind::Updates => fused,
            StageKind::Evaluation => evaluations,
        };
        let cost = |kind| {
            let Cost { work, logits, sums, host, reads, bytes } = self.cost(config, rates, kind);
            let io = |bytes: u64, rate: f64| bytes as f64 / rate;
            let choice = logits * rates.choice.of(kind, config);
            let parts = [
                TimePart::new("passes", By::Device, work.passes(rates)),
                TimePart::new("adapters", By::Device, work.adapters / rates.adapters),
                TimePart::new("choice", By::Device, choice),
                TimePart::new("sums", By::Device, sums * rates.sum),
                TimePart::new(host.0, By::Host, host.1),
                TimePart::new("load", By::One, io(self.loaded(kind), rates.load)),
                TimePart::new("reads", By::One, io(reads, rates.fetch)),
                TimePart::new("writes", By::After, io(bytes, rates.store)),
                TimePart::new("records", By::After, rates.records),
            ];
            let parts = parts.into_iter().filter(|part| part.one > 0.0).collect();
            let flops = work.products + work.adapters;
            StageCost { kind, stages: stages(kind), flops, bytes, parts }
        };
        StageKind::ALL.into_iter().map(cost).collect()
    }

    fn cost(&self, config: &RunConfig, rates: &Rates, kind: StageKind) -> Cost {
        let trained = self.trained_bytes();
        match kind {
            StageKind::Sft => self.fine_tuning(config, rates),
            StageKind::Rollout => self.sampled(config),
            StageKind::Reward => Cost {
                host: ("grading", self.rollout_rows as f64 * rates.grading),
                bytes: 64 * self.rollout_rows,
                ..Cost::default()
            },
            StageKind::Gradient => self.differentiated(config),
            StageKind::Update => self.updated(rates, trained.saturating_mul(3 + self.shards), 1.0),
            StageKind::Updates => {
                let inner = f64::from(config.estimator.inner_updates);
                let gradient = self.differentiated(config);
                let gradients = inner * self.shards as f64;
                let steps = f64::from(config.estimator.optimizer_steps());
                let mut all = self.updated(rates, trained.saturating_mul(3), steps);
                all.work = gradient.work.times(gradients);
                all.sums = gradient.sums * gradients;
                all
            }
            StageKind::Evaluation => self.evaluated(config),
        }
    }

    /// `steps` of the optimizer, and the files before and after them. Everything that is read and written is hashed.
    fn updated(&self, rates: &Rates, reads: u64, steps: f64) -> Cost {
        let (trained, shards) = (self.trained_bytes(), self.shards as f64);
        let of_number = steps * (shards * rates.join + rates.step) + rates.output;
        let hashed = (reads + 3 * trained) as f64 / rates.hash;
        let seconds = trained as f64 / 4.0 * of_number + hashed;
        Cost { host: ("update", seconds), reads, bytes: 3 * trained, ..Cost::default() }
    }

    /// Weights that a stage puts where it computes: with adapters, the base stays there.
    fn loaded(&self, kind: StageKind) -> u64 {
        match kind {
            StageKind::Reward | StageKind::Update => 0,
            _ => self.trained_bytes(),
        }
    }

    fn fine_tuning(&self, config: &RunConfig, rates: &Rates) -> Cost {
        let Some(sft) = &config.sft else { return Cost::default() };
        let length = self.rollout.length as f64;
        let asked =
            Asked { tokens: length, length, queried: config.rollout.completion_tokens.into() };
        let steps = f64::from(sft.steps_per_stage.min(sft.steps));
        let micro = f64::from(sft.batch.div_ceil(sft.micro_batch.max(1)));
        let numbers = self.trained_bytes() as f64 / 4.0;
        Cost {
            work: self.work(&asked).there_and_back(2.0).times(steps * f64::from(sft.batch)),
            sums: steps * micro * numbers,
            host: ("steps", steps * numbers * rates.step),
            reads: 3 * self.trained_bytes(),
            bytes: 3 * self.trained_bytes(),
            ..Cost::default()
        }
    }

    fn sampled(&self, config: &RunConfig) -> Cost {
        let rollout = &config.rollout;
        let rows = self.rollout_rows as f64;
        // All completions of a prompt begin in one state.
        let alike = rows - rows / f64::from(rollout.group);
        let sampler = Sampler::from(rollout);
        let (work, logits) = self.decoded(&sampler, self.rollout.length, rows, alike);
        let completion = u64::from(rollout.completion_tokens);
        // Ids and steps in 8 bytes, log-probabilities and entropies in 4; kept ids in 8.
        let kept = if rollout.top_k > 0 { 8 * u64::from(rollout.top_k) } else { 0 };
        let row = 8 * self.rollout.length + completion * (8 + 4 + 4 + kept);
        Cost { work, logits, bytes: self.rollout_rows * row, ..Cost::default() }
    }

    fn evaluated(&self, config: &RunConfig) -> Cost {
        let problems =
            f64::from(config.evaluation.problems) / f64::from(config.evaluation_shards());
        let mut cost = Cost { bytes: 16 << 10, ..Cost::default() };
        let longest = u64::from(config.longest_evaluation());
        let prompt = self.evaluation.length.saturating_sub(longest);
        for sampler in config.evaluation_samplers() {
            let length = prompt + u64::from(sampler.completion_tokens);
            let (work, logits) = self.decoded(&sampler, length, problems, 0.0);
            let guided = if sampler.guidance.get() > 0.0 { 2.0 } else { 1.0 };
            cost.work = cost.work.plus(work.times(guided));
            cost.logits += logits;
        }
        cost
    }

    fn differentiated(&self, config: &RunConfig) -> Cost {
        let samples = match config.estimator.k {
            Samples::All => config.rollout.steps,
            Samples::Count(k) => k,
        };
        let samples = f64::from(samples);
        let steps = f64::from(config.rollout.steps.max(1));
        let rows = self.rollout_rows as f64;
        // Of the samples of a prompt's first step, only one differs.
        let alike = (rows - rows / f64::from(config.rollout.group)) * (samples / steps).min(1.0);
        // One pass over a row gives its whole likelihood where nothing behind a position is seen.
        let is_causal = self.sizes.is_causal();
        let states = if is_causal { rows } else { rows * samples - alike };
        let length = self.gradient.length as f64;
        let asked = Asked { tokens: length, length, queried: self.gradient.queried as f64 };
        let pass = self.work(&asked);
        let back = if self.lora.is_some() { 1.0 } else { 2.0 };
        let own = pass.there_and_back(back);
        let again = if self.checkpointing { 1.0 } else { 0.0 };
        // The other policies need a forward pass only.
        let more = pass.times(again + of_others(&config.estimator));
        let passes = (states / self.gradient.sequences.max(1) as f64).ceil();
        let numbers = self.trained_bytes() as f64 / 4.0;
        Cost {
            work: own.plus(more).times(states),
            sums: passes * numbers,
            bytes: self.trained_bytes(),
            ..Cost::default()
        }
    }
}

/// Forward passes of other policies for each pass that is differentiated, on average over an iteration's updates.
fn of_others(estimator: &EstimatorConfig) -> f64 {
    let reference = f64::from(u8::from(estimator.kl.get() > 0.0));
    // The sampler recorded what it drew tokens with, but not how likely it was to pass positions over.
    let computes_behaviour = match estimator.kind {
        EstimatorKind::Agrpo | EstimatorKind::ArGrpo => estimator.position_gradient,
        EstimatorKind::DiffuGrpo | EstimatorKind::CoupledGrpo | EstimatorKind::MergedStep => true,
    };
    // In the first update it is the policy that is differentiated.
    let inner = f64::from(estimator.inner_updates);
    let behaviour = if computes_behaviour { (inner - 1.0) / inner } else { 0.0 };
    reference + behaviour
}

/// What one stage asks for.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    work: Work,
    /// Logits of the positions whose token is chosen.
    logits: f64,
    /// Numbers of gradients that are added to others.
    sums: f64,
    /// What the host's threads do beside, and its seconds.
    host: (&'static str, f64),
    reads: u64,
    bytes: u64,
}

#[cfg(test)]
mod tests;
