//! The span of a stage's work: every line logged within it has run, stage, key and attempt.
//!
//! Fields, not text: the program decides how they are shown. `agrpo_store::span::carried` takes the span to other
//! threads, as `tracing` does not.

use agrpo_spec::{RunId, StageDigest, StageKey};
use tracing::Span;

/// The span of one attempt, counted from 1. An error's level, so that no filter that lets a line pass
/// takes its ids away.
pub(crate) fn of_stage(run: RunId, key: StageKey, stage: StageDigest) -> Span {
    tracing::error_span!("stage", %run, %stage, %key, attempt = tracing::field::Empty)
}
