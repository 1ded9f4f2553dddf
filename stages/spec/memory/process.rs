//! The memory of fine-tuning, and of a process that computes stages at the same time.
//!
//! glibc keeps freed pieces of up to 32 MiB (`src/numerics.rs`) in arenas, which threads share. A pass of small pieces
//! leaves its arena as large as it made it, about twice what it needs at once. Larger pieces go back to the system.

use super::parts::{self, Estimate, Part};
use super::{LARGE_PIECE, PassSizes, Workload, product};
use crate::stage::StageKind;

/// Arenas beside those of the threads that compute: of threads that store, and of threads that have ended.
pub const SPARE_ARENAS: u64 = 2;
/// Hundredths of what a pass needs that its arena keeps, as measured with the runs of this repository.
const KEPT: u64 = 190;

impl Workload {
    /// Fine-tuning: all weights in f32 with moments and gradients, and the files of the stage before.
    pub(super) fn of_fine_tuning(&self) -> Option<Vec<Part>> {
        let own = self.as_fine_tuning()?;
        let trained = own.trained_bytes();
        let mut parts = own.policies(false);
        parts.push(Part::new("optimizer's file", own.handed(trained.saturating_mul(2))));
        parts.push(Part::new("moments", trained.saturating_mul(2)));
        let passing = own.passing().into_iter().map(|part| part.times(own.threads));
        let gradients = [Part::new("gradients", trained), own.gradients_of_passes()];
        let output = vec![Part::new("output", trained.saturating_mul(3))];
        parts.extend(parts::larger(passing.chain(gradients).collect(), output));
        Some(parts)
    }

    /// The same sizes with fine-tuning's passes in place of a gradient's.
    fn as_fine_tuning(&self) -> Option<Self> {
        let gradient = self.fine_tuning?;
        Some(Self { gradient, lora: None, checkpointing: false, other_policies: 0, ..self.clone() })
    }

    /// A process that computes `stages` at the same time: the largest of them as often, and what its arenas keep.
    pub fn process(&self, stages: u64) -> u64 {
        let is_of_run = |kind: &StageKind| match kind {
            StageKind::Gradient | StageKind::Update => !self.fused_updates,
            StageKind::Updates => self.fused_updates,
            _ => true,
        };
        let kinds = StageKind::ALL.into_iter().filter(is_of_run);
        let estimates = kinds.filter_map(|kind| self.stage(kind));
        let one = |estimate: &Estimate| {
            let passes = self.of_passes(estimate.stage);
            let beside = estimate.bytes().saturating_sub(super::PROGRAM).saturating_sub(passes);
            let threads = self.threads.max(1);
            let kept = match self.returns_pieces(estimate.stage) {
                true => passes.saturating_mul(stages),
                false => {
                    product(&[
                        passes / threads,
                        stages.saturating_mul(threads) + SPARE_ARENAS,
                        KEPT,
                    ]) / 100
                }
            };
            super::PROGRAM.saturating_add(beside.saturating_mul(stages)).saturating_add(kept)
        };
        estimates.map(|estimate| one(&estimate)).max().unwrap_or(super::PROGRAM)
    }

    /// What the passes of a stage hold.
    fn of_passes(&self, kind: StageKind) -> u64 {
        let differentiated =
            |own: &Self| own.passing().into_iter().map(|part| part.bytes).sum::<u64>();
        let sampled = |pass: &PassSizes| self.at_work(pass).bytes;
        let of_pass = match kind {
            StageKind::Sft => self.as_fine_tuning().map_or(0, |own| differentiated(&own)),
            StageKind::Gradient | StageKind::Updates => differentiated(self),
            StageKind::Rollout => sampled(&self.rollout),
            StageKind::Evaluation => sampled(&self.evaluation),
            StageKind::Reward | StageKind::Update => 0,
        };
        of_pass.saturating_mul(self.threads)
    }

    /// Whether the largest pieces of a pass are returned at once.
    fn returns_pieces(&self, kind: StageKind) -> bool {
        let pass = match kind {
            StageKind::Rollout => &self.rollout,
            StageKind::Evaluation => &self.evaluation,
            StageKind::Sft => self.fine_tuning.as_ref().unwrap_or(&self.gradient),
            _ => &self.gradient,
        };
        product(&[pass.tokens(), self.widest(), self.precision.bytes()]) > LARGE_PIECE
    }
}
