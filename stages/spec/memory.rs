//! Estimates a stage's peak memory by formula, part by part, before anything is computed.
//!
//! ```text
//! A = H E, C = K E                      width of all heads of queries, of keys; LLaDA has A = C = D
//! P = 2 V D + D + n (2 D A + 2 D C + 3 D M + 2 D + biases A + 2 C + norms of heads 2 E)   weights
//! T = P, or sum of R (I + O) with adapters
//! f32: a block keeps  4 D + 2 A + 2 C + 3 M or, with adapters, 4 D + 4 A + 3 C + 4 M + 7 R   numbers a token for its
//!      backward pass; with norms of heads A + C more
//!      a pass keeps   all blocks; with checkpointing n D, and one block whole; on its way back less, and more gradients
//!      the head       4 V   numbers a distribution
//! ```
//! `docs/memory.md` says where the factors come from and what was measured. Sizes are of one process that computes one
//! stage, `Workload::threads` passes of it at a time: in one memory or, beside a GPU, in two. Nothing is measured or
//! allocated here.

mod block;
mod gradient;
mod parts;
mod process;
mod sizes;

pub use gradient::GradientSizes;

use crate::family::{AttendsTo, Family};
use crate::run::{
    Base, Cache, Checkpointing, EstimatorConfig, EstimatorKind, LoraConfig, Precision, Run, Samples,
};
use crate::{content::LARGE, stage::StageKind};

pub use parts::{Estimate, Part, Place, TooLarge};
pub use process::SPARE_ARENAS;
pub use sizes::Sizes;
use sizes::product;

/// Bytes of the program itself, libtorch included, before it computes.
const PROGRAM: u64 = 130 << 20;
/// Bytes of a GPU that CUDA and the libraries on it take for a process: assumed, since no GPU was measured.
const CONTEXT: u64 = 512 << 20;
/// Bytes of a number in f32.
const SINGLE: u64 = 4;
/// Bytes above which the allocator returns a piece to the system at once (`src/numerics.rs`).
const LARGE_PIECE: u64 = 32 << 20;
/// Numbers of f32 that head and softmax hold for a logit at their peak.
const HEAD: u64 = 4;

impl Precision {
    /// Bytes of one weight.
    fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

/// One forward pass, or one forward and backward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassSizes {
    /// B, sequences.
    pub sequences: u64,
    /// L, tokens of each, prompt and completion.
    pub length: u64,
    /// Q, positions of each whose distribution is wanted.
    pub queried: u64,
}

impl PassSizes {
    fn tokens(&self) -> u64 {
        product(&[self.sequences, self.length])
    }

    fn distributions(&self) -> u64 {
        product(&[self.sequences, self.queried])
    }
}

/// The sizes that determine the memory of a run's stages.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// The model.
    pub sizes: Sizes,
    /// The number format of the base's weights. Trained weights are f32.
    pub precision: Precision,
    /// The adapter that is trained instead of all weights.
    pub lora: Option<LoraConfig>,
    /// Whether a stage reads its inputs into memory as a whole, rather than in windows.
    pub inputs_in_memory: bool,
    /// A pass of a rollout.
    pub rollout: PassSizes,
    /// Completions that a rollout stage samples.
    pub rollout_rows: u64,
    /// Sequences whose keys and values a rollout or an evaluation keeps at once; 0 without a cache.
    pub cached_sequences: u64,
    /// A pass of a gradient.
    pub gradient: PassSizes,
    /// Whether a gradient's pass keeps the inputs of its blocks alone.
    pub checkpointing: bool,
    /// Policies in memory beside the one that is differentiated: a reference, one that sampled. Fused updates keep that one
    /// in any case, since the policy moves on memory of its own.
    pub other_policies: u64,
    /// Gradients that an update joins.
    pub shards: u64,
    /// A pass of an evaluation.
    pub evaluation: PassSizes,
    /// A pass of fine-tuning; none where the base is a checkpoint.
    pub fine_tuning: Option<PassSizes>,
    /// Passes that a stage computes side by side.
    pub threads: u64,
    /// Whether all inner updates of an iteration are one stage.
    pub fused_updates: bool,
    /// Whether a GPU computes the passes: in its memory are policies and what passes hold. The host has the rest, and the
    /// optimizer computes there.
    pub is_gpu: bool,
}

impl Workload {
    /// The workload, on one thread, of a run whose own tokenizer has `vocabulary` ids and whose prompts have at most `prompt_tokens`. A
    /// checkpoint's files are read in windows, those of the run's own model as a whole. `estimator.checkpointing = "auto"`
    /// is taken for `true`; [`Self::decided`] decides it.
    pub fn of(run: &Run, vocabulary: u64, prompt_tokens: u64) -> Self {
        let config = run.config();
        let (rollout, estimator) = (&config.rollout, &config.estimator);
        let length = prompt_tokens + u64::from(rollout.completion_tokens);
        let pass = |sequences: u32, queried: u32| PassSizes {
            sequences: sequences.into(),
            length,
            queried: queried.into(),
        };
        let prompts = rollout.prompts / rollout.shards.max(1);
        let evaluated = config.evaluation_block_tokens();
        Self {
            sizes: Sizes::of(run.base(), vocabulary),
            precision: run.base().precision(),
            lora: config.lora.clone(),
            inputs_in_memory: matches!(run.base(), Base::Scratch(..)),
            rollout: pass(rollout.micro_batch, rollout.block_tokens),
            rollout_rows: product(&[prompts.into(), rollout.group.into()]),
            cached_sequences: cached(rollout.cache, rollout.micro_batch)
                .max(cached(config.evaluation.cache, config.evaluation.micro_batch)),
            gradient: pass(
                estimator.micro_batch,
                queried(
                    (estimator, run.config().family()),
                    rollout.group,
                    (rollout.completion_tokens, rollout.block_tokens, rollout.steps),
                ),
            ),
            checkpointing: estimator.checkpointing != Checkpointing::Never,
            other_policies: u64::from(estimator.kl.get() > 0.0)
                + u64::from(estimator.inner_updates > 1 || estimator.fused_updates),
            shards: rollout.shards.into(),
            evaluation: PassSizes {
                length: prompt_tokens + u64::from(config.longest_evaluation()),
                ..pass(config.evaluation.micro_batch, evaluated)
            },
            fine_tuning: config
                .sft
                .as_ref()
                .map(|sft| pass(sft.micro_batch, rollout.completion_tokens)),
            threads: 1,
            fused_updates: estimator.fused_updates,
            is_gpu: config.numerics.is_cuda(),
        }
    }

    /// The peak of a stage of this kind. None for grading, which has no model, and for fine-tuning where there is none.
    pub fn stage(&self, kind: StageKind) -> Option<Estimate> {
        let parts = match kind {
            StageKind::Rollout => self.sampling(&self.rollout),
            StageKind::Evaluation => self.sampling(&self.evaluation),
            StageKind::Gradient => self.gradient(),
            StageKind::Update => self.update(),
            StageKind::Updates => self.updates(),
            StageKind::Sft => self.of_fine_tuning()?,
            StageKind::Reward => return None,
        };
        Some(Estimate { stage: kind, parts })
    }

    /// The parts of every stage with a policy: the program, the policy, and its files if they are read as a whole.
    fn policies(&self, trained: bool) -> Vec<Part> {
        let base = product(&[self.sizes.weights(), self.precision.bytes()]);
        let adapter = self.lora.as_ref().map_or(0, |lora| self.sizes.adapter(lora) * SINGLE);
        // With adapters, all policies of a run share one base in memory.
        let others = if trained { self.other_policies } else { 0 };
        let more_bases = if self.lora.is_some() { 0 } else { others };
        // The policy that moves during fused updates was read as the one that sampled.
        let folders = if trained && self.fused_updates { others } else { 1 + others };
        let files = if self.inputs_in_memory { base + adapter } else { 0 };
        let context = self.is_gpu.then_some(Part::new("context", CONTEXT));
        let parts = [
            self.beside("program", PROGRAM),
            self.beside("inputs", files.saturating_mul(folders)),
            Part::new("weights", base.saturating_mul(1 + more_bases)),
            Part::new("adapters", adapter.saturating_mul(1 + others)),
        ];
        parts.into_iter().chain(context).collect()
    }

    /// What the host holds: in its own memory, if that is another than the device's.
    fn beside(&self, name: &'static str, bytes: u64) -> Part {
        let place = if self.is_gpu { Place::Host } else { Place::Device };
        Part { place, ..Part::new(name, bytes) }
    }

    /// The same of what is copied from a GPU first: nothing is copied where processors compute.
    fn copied(&self, name: &'static str, bytes: u64) -> Part {
        self.beside(name, if self.is_gpu { bytes } else { 0 })
    }

    fn sampling(&self, pass: &PassSizes) -> Vec<Part> {
        let (sizes, number) = (&self.sizes, self.precision.bytes());
        let cache = [2, sizes.n_layers, sizes.keys(), pass.length, self.cached_sequences, number];
        let mut parts = self.policies(false);
        parts.extend([
            Part::new("cache", product(&cache)).times(self.threads),
            self.at_work(pass).times(self.threads),
        ]);
        parts
    }

    /// What a pass holds that samples.
    fn at_work(&self, pass: &PassSizes) -> Part {
        Part::larger([Part::new("block at work", self.forward(pass)), self.head(pass)])
    }

    fn head(&self, pass: &PassSizes) -> Part {
        Part::new("head", product(&[pass.distributions(), self.sizes.vocabulary, SINGLE, HEAD]))
    }

    /// Whether the allocator keeps the memory of trained matrices that are no longer needed.
    fn has_small_matrices(&self) -> bool {
        self.lora.is_some() || product(&[self.sizes.d_model, self.widest(), SINGLE]) <= LARGE_PIECE
    }

    /// Columns of the widest matrix of a block.
    fn widest(&self) -> u64 {
        (2 * self.sizes.mlp_hidden_size).max(self.sizes.queries() + 2 * self.sizes.keys())
    }

    /// The policy and its moments are updated in f32, then written, when the gradients are no longer needed. On one thread
    /// the policy is written first, and no longer needed when the moments are.
    fn update(&self) -> Vec<Part> {
        let trained = self.trained_bytes();
        let base = product(&[self.sizes.weights(), self.precision.bytes()]);
        let base = if self.lora.is_some() { base } else { 0 };
        let own = self
            .handed(base)
            .saturating_add(self.handed(trained))
            .saturating_add(self.handed(2 * trained))
            .saturating_add(self.handed(trained).saturating_mul(self.shards));
        let kept = if self.has_small_matrices() { trained } else { 0 };
        // Beside a GPU, the host's cores.
        let is_written_beside = self.threads > 1 || self.is_gpu;
        vec![
            self.beside("program", PROGRAM),
            self.beside("inputs", own),
            self.beside("gradients", kept),
            self.beside("moments", 2 * trained),
            self.beside("new policy", if is_written_beside { trained } else { kept }),
            self.beside("output", 3 * trained),
        ]
    }

    /// The bytes of a file of gradients or moments in memory: large ones are read in windows from any store.
    fn handed(&self, bytes: u64) -> u64 {
        if self.inputs_in_memory || bytes <= LARGE { bytes } else { 0 }
    }

    /// Bytes of one copy of the T trained weights.
    pub(crate) fn trained_bytes(&self) -> u64 {
        let trained = self.lora.as_ref().map(|lora| self.sizes.adapter(lora));
        product(&[trained.unwrap_or(self.sizes.weights()), SINGLE])
    }
}

/// Sequences whose keys and values are kept at once.
fn cached(cache: Cache, micro_batch: u32) -> u64 {
    if cache == Cache::None { 0 } else { micro_batch.into() }
}

/// Positions of a state whose distributions the estimator reads, at most; of completions of so many tokens, in blocks of
/// so many, in so many steps.
fn queried(
    (estimator, family): (&EstimatorConfig, Family),
    group: u32,
    (tokens, block, steps): (u32, u32, u32),
) -> u32 {
    if family.traits().attends_to == AttendsTo::Before {
        return tokens;
    }
    let of_step = (tokens / steps.max(1)).max(1);
    match estimator.kind {
        EstimatorKind::Agrpo if estimator.position_gradient => block,
        // Completions of a group that are in one state share it.
        EstimatorKind::Agrpo => of_step.saturating_mul(group).min(block),
        EstimatorKind::ArGrpo => 1,
        EstimatorKind::DiffuGrpo | EstimatorKind::CoupledGrpo => tokens,
        EstimatorKind::MergedStep => match estimator.k {
            Samples::Count(segments) => {
                steps.div_ceil(segments.max(1)).saturating_mul(of_step).min(tokens)
            }
            Samples::All => tokens,
        },
    }
}

#[cfg(test)]
mod tests;
