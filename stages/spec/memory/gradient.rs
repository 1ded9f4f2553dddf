//! The estimate of one gradient, of a stage of its own or within fused updates, and the decision that follows from it:
//! whether its passes are checkpointed.
//!
//! Results do not depend on the decision, so a stage may take it by the memory that it finds. Measures none.

use super::parts::{self, Part};
use super::{PassSizes, Sizes, Workload, queried};
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
}

impl Workload {
    /// The workload of the stage that computes a gradient.
    pub fn of_gradient(of: &GradientSizes<'_>) -> Self {
        let (sampler, estimator) = (of.sampler, of.estimator);
        let tokens = (sampler.completion_tokens, sampler.block_tokens, sampler.steps);
        let sequences = estimator.micro_batch.into();
        let queried = queried(estimator, of.group, tokens).into();
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
        }
    }

    /// A gradient, with the moments, the mean over shards, and the policy that sampled beside them. The outputs are
    /// written when gradients are no longer needed, and are the same as an update's.
    pub(super) fn updates(&self) -> Vec<Part> {
        let trained = self.trained_bytes();
        let mut parts = self.policies(true);
        parts.push(Part::new("optimizer's file", self.handed(2 * trained)));
        parts.push(Part::new("moments", 2 * trained));
        let mean = Part::new("gradients", trained.saturating_mul(self.shards.min(2)));
        let passing = self.passing().into_iter().map(|part| part.times(self.threads));
        let learning = passing.chain([self.gradients_of_passes(), mean]).collect();
        parts.extend(parts::larger(learning, vec![Part::new("output", 3 * trained)]));
        parts
    }

    /// The same with the decision of `asked`: `auto` checkpoints the passes of a stage of this kind where it does not
    /// fit `available` bytes without, or where these are not known.
    #[must_use]
    pub fn decided(self, kind: StageKind, asked: Checkpointing, available: Option<u64>) -> Self {
        let without = Self { checkpointing: false, ..self };
        let gradient = without.stage(kind);
        let fits = |bytes| gradient.as_ref().is_some_and(|gradient| gradient.fits(bytes).is_ok());
        let checkpointing = match asked {
            Checkpointing::Never => false,
            Checkpointing::Always => true,
            Checkpointing::Auto => !available.is_some_and(fits),
        };
        Self { checkpointing, ..without }
    }
}
