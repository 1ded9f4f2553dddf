//! The memory of fine-tuning, and of a process that computes stages at the same time.
//!
//! glibc keeps freed pieces of up to 32 MiB (`src/numerics.rs`) in arenas, which threads share. A pass of small pieces
//! leaves its arena as large as it made it, about twice what it needs at once. Larger pieces go back to the system.

use super::parts::{self, Estimate, Part, Place};
use super::{CONTEXT, LARGE_PIECE, PROGRAM, PassSizes, Workload, product};
use crate::stage::StageKind;

/// Arenas beside those of the threads that compute: of threads that store, and of threads that have ended.
pub const SPARE_ARENAS: u64 = 2;
/// Hundredths of what a pass needs that its arena keeps, as measured with the runs of this repository: of what the kernels
/// keep, which is counted to the number, and of other passes, whose numbers are larger than that.
const KEPT_OF_KERNELS: u64 = 360;
const KEPT: u64 = 190;

impl Workload {
    /// Fine-tuning: all weights in f32 with moments and gradients, and the files of the stage before.
    pub(super) fn of_fine_tuning(&self) -> Option<Vec<Part>> {
        let own = self.as_fine_tuning()?;
        let trained = own.trained_bytes();
        let mut parts = own.policies(false);
        parts.push(own.beside("optimizer's file", own.handed(trained.saturating_mul(2))));
        parts.push(own.beside("moments", trained.saturating_mul(2)));
        let mut learning = own.passes();
        learning.push(Part::new("gradients", trained));
        learning.push(own.copied("copies of policy and gradients", trained.saturating_mul(2)));
        let output = own.beside("output", trained.saturating_mul(3));
        parts.extend(parts::larger(learning, vec![own.copied("new policy", trained), output]));
        Some(parts)
    }

    /// The same sizes with fine-tuning's passes in place of a gradient's.
    fn as_fine_tuning(&self) -> Option<Self> {
        let gradient = self.fine_tuning?;
        Some(Self { gradient, lora: None, checkpointing: false, other_policies: 0, ..self.clone() })
    }

    /// A process that computes `stages` at the same time, in one memory: the largest of them as often, and what its arenas
    /// keep.
    pub fn process(&self, stages: u64, place: Place) -> u64 {
        // Those that stages share: a GPU has the context, its host the program.
        let shared = if self.is_gpu && place == Place::Device { CONTEXT } else { PROGRAM };
        let one = |estimate: &Estimate| {
            let passes = if place == Place::Device { self.of_passes(estimate.stage) } else { 0 };
            let beside = estimate.sum(place).saturating_sub(shared).saturating_sub(passes);
            let threads = self.threads.max(1);
            let kept = match self.is_gpu || self.returns_pieces(estimate.stage) {
                true => passes.saturating_mul(stages),
                false => {
                    product(&[
                        passes / threads,
                        stages.saturating_mul(threads) + SPARE_ARENAS,
                        self.kept_of(estimate.stage),
                    ]) / 100
                }
            };
            shared.saturating_add(beside.saturating_mul(stages)).saturating_add(kept)
        };
        self.stages().map(|estimate| one(&estimate)).max().unwrap_or(shared)
    }

    /// The peaks of the run's stages, one of each kind.
    pub fn stages(&self) -> impl Iterator<Item = Estimate> {
        let is_of_run = |kind: &StageKind| match kind {
            StageKind::Gradient | StageKind::Update => !self.fused_updates,
            StageKind::Updates => self.fused_updates,
            _ => true,
        };
        let kinds = StageKind::ALL.into_iter().filter(is_of_run);
        kinds.filter_map(|kind| self.stage(kind))
    }

    /// What the passes of a stage hold.
    fn of_passes(&self, kind: StageKind) -> u64 {
        let differentiated = |own: &Self| parts::sum(&own.pass(), Place::Device);
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

    /// Hundredths of what the passes of a stage hold that their arenas keep.
    fn kept_of(&self, kind: StageKind) -> u64 {
        let is_of_kernels = match kind {
            StageKind::Sft => self.as_fine_tuning().is_some_and(|own| own.has_kernels_alone()),
            StageKind::Gradient | StageKind::Updates => self.has_kernels_alone(),
            _ => false,
        };
        if is_of_kernels { KEPT_OF_KERNELS } else { KEPT }
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
