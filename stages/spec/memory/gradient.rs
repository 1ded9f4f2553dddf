//! The estimate of one gradient, of a stage of its own or within fused updates, and the decision that follows from it:
//! whether its passes are checkpointed.
//!
//! Results do not depend on the decision, so a stage may take it by the memory that it finds. Measures none.

use super::parts::{self, Part};
use super::{LARGE_PIECE, PassSizes, Place, SINGLE, Sizes, Workload, product, queried};
use crate::run::{Checkpointing, EstimatorConfig, LoraConfig, Precision, Sampler};
use crate::stage::StageKind;

/// What the memory of a gradient depends on.
#[derive(Clone, Copy, Debug)]
pub struct GradientSizes<'a> {
    /// The estimator.
    pub estimator: &'a EstimatorConfig,
    /// How the trajectories were sampled.
    pub sampler: &'a Sampler,
    /// Completions of a prompt.
    pub group: u32,
    /// The number format of all policies.
    pub precision: Precision,
    /// The adapter that is trained instead of all weights.
    pub lora: Option<&'a LoraConfig>,
    /// Gradients that an update joins.
    pub shards: u64,
    /// Policies beside the one that is differentiated.
    pub other_policies: u64,
    /// Of the policies.
    pub sizes: Sizes,
    /// Tokens of a trajectory, prompt and completion.
    pub length: u64,
    /// Whether the policy's files are read as a whole.
    pub inputs_in_memory: bool,
    /// Passes that are computed side by side.
    pub threads: u64,
    /// Whether a GPU computes them.
    pub is_gpu: bool,
}

impl Workload {
    /// The workload of the stage that computes a gradient.
    pub fn of_gradient(of: &GradientSizes<'_>) -> Self {
        let (sampler, estimator) = (of.sampler, of.estimator);
        let tokens = (sampler.completion_tokens, sampler.block_tokens, sampler.steps);
        let sequences = estimator.micro_batch.into();
        let queried = queried((estimator, of.sizes.family), of.group, tokens).into();
        let pass = PassSizes { sequences, length: of.length, queried };
        Self {
            sizes: of.sizes,
            precision: of.precision,
            lora: of.lora.cloned(),
            inputs_in_memory: of.inputs_in_memory,
            rollout: pass,
            rollout_rows: 0,
            cached_sequences: 0,
            gradient: pass,
            checkpointing: estimator.checkpointing != Checkpointing::Never,
            other_policies: of.other_policies,
            shards: of.shards,
            evaluation: pass,
            fine_tuning: None,
            threads: of.threads,
            fused_updates: estimator.fused_updates,
            is_gpu: of.is_gpu,
        }
    }

    /// The policies, the sum of the passes' gradients, the pass at work; then the file.
    pub(super) fn gradient(&self) -> Vec<Part> {
        let trained = self.trained_bytes();
        let mut parts = self.policies(true);
        parts.push(Part::new("gradients", trained));
        let copies = self.copied("copies of gradients", trained);
        let file = self.beside("output", trained);
        let is_kept = !self.is_gpu && self.is_kept_by_the_allocator();
        let (writing, kept) =
            if is_kept { (vec![], Some(file)) } else { (vec![copies, file], None) };
        parts.extend(parts::larger(self.passes(), writing));
        parts.extend(kept);
        parts
    }

    /// A gradient, with the moments, the mean over shards, and the policy that sampled beside them. The outputs are
    /// written when gradients are no longer needed, and are the same as an update's.
    pub(super) fn updates(&self) -> Vec<Part> {
        let trained = self.trained_bytes();
        let mut parts = self.policies(true);
        parts.push(self.beside("optimizer's file", self.handed(2 * trained)));
        parts.push(self.beside("moments", 2 * trained));
        let has_masters = self.lora.is_none() && self.precision == Precision::Bf16;
        parts.push(self.beside("masters", if has_masters { trained } else { 0 }));
        // The mean begins as the gradient of the first shard.
        let more = self.shards.saturating_sub(1).min(1);
        let mut learning = self.passes();
        learning.push(Part::new("gradients", trained));
        learning.push(self.copied("copies of gradients", trained));
        learning.push(self.beside("mean gradient", trained.saturating_mul(more)));
        let writing = vec![self.copied("new policy", trained), self.beside("output", 3 * trained)];
        parts.extend(parts::larger(learning, writing));
        parts
    }

    /// What all passes hold that are computed side by side, beside weights and the sum of their gradients.
    pub(super) fn passes(&self) -> Vec<Part> {
        let at_work = self.pass().into_iter().map(|part| part.times(self.threads));
        // While one is computed, the gradient of one more may wait for each thread.
        let waiting = if self.threads > 1 { self.threads } else { 0 };
        let waiting = self.trained_bytes().saturating_mul(waiting);
        at_work.chain([Part::new("waiting gradients", waiting)]).collect()
    }

    /// glibc returns pieces of more than 32 MiB to the system at once, and mostly keeps smaller ones.
    fn is_kept_by_the_allocator(&self) -> bool {
        product(&[self.gradient.tokens(), self.widest(), self.precision.bytes()]) <= LARGE_PIECE
    }

    /// What one pass holds at its peak: as its way back begins or, since it drops the activations of each block whose
    /// gradient it has, as it ends.
    pub(super) fn pass(&self) -> Vec<Part> {
        let (sizes, pass) = (&self.sizes, &self.gradient);
        let own = |bytes| Part::new("gradients of passes", bytes);
        let block = product(&[pass.tokens(), self.kept()]);
        let input = product(&[pass.tokens(), sizes.d_model, self.precision.bytes()]);
        let work = product(&[pass.tokens(), self.beside_kept()]);
        // The last block computes the queried positions only, but keys and values of all tokens.
        let last = product(&[pass.distributions(), self.kept()])
            .saturating_add(product(&[pass.tokens(), self.kept_of_last()]));
        let (name, begin, end, one) = if self.checkpointing {
            let again = block.saturating_add(work);
            ("block inputs", input.saturating_mul(sizes.n_layers), input, again)
        } else {
            let all = block.saturating_mul(sizes.n_layers - 1).saturating_add(last);
            ("activations", all, block.max(last), work)
        };
        let one = Part::new("block at work", one);
        let begin = [Part::new(name, begin), Part::larger([self.head(pass), one])];
        let end = [Part::new(name, end), one, own(self.trained_bytes())];
        parts::larger(begin.into_iter().chain([own(self.first_gradients())]).collect(), end.into())
    }

    /// Bytes of the gradients of the head and of the two uppermost blocks, which are there when the activations of the
    /// blocks below them still are.
    fn first_gradients(&self) -> u64 {
        let lower = Sizes { n_layers: self.sizes.n_layers.saturating_sub(2), ..self.sizes };
        let table = product(&[lower.vocabulary, lower.d_model]);
        let of_lower = match &self.lora {
            Some(lora) => lower.adapter(&LoraConfig { head: false, ..lora.clone() }),
            // Of the two tables, one is the head.
            None => lower.weights() - table,
        };
        self.trained_bytes() - product(&[of_lower, SINGLE])
    }

    /// The same with the decision of `asked`: `auto` checkpoints the passes of a stage of this kind where it does not
    /// fit `available` bytes of the device's memory without, or where these are not known.
    #[must_use]
    pub fn decided(self, kind: StageKind, asked: Checkpointing, available: Option<u64>) -> Self {
        let without = Self { checkpointing: false, ..self };
        let gradient = without.stage(kind);
        let fits = |bytes| {
            gradient.as_ref().is_some_and(|gradient| gradient.fits(Place::Device, bytes).is_ok())
        };
        let checkpointing = match asked {
            Checkpointing::Never => false,
            Checkpointing::Always => true,
            Checkpointing::Auto => !available.is_some_and(fits),
        };
        Self { checkpointing, ..without }
    }
}
