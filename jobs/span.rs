//! The span of a stage's work: every line that is logged within it tells run, stage, key and attempt.
//!
//! Fields, not text: how they are shown is the program's business. The span follows the work to
//! other threads by hand, as `tracing` does not.

use agrpo_spec::{RunId, StageDigest, StageKey};
use tracing::Span;

/// The span of one attempt, counted from 1. An error's level, so that no filter that lets a line pass
/// takes its ids away.
pub(crate) fn of_stage(run: RunId, key: StageKey, stage: StageDigest) -> Span {
    tracing::error_span!("stage", %run, %stage, %key, attempt = tracing::field::Empty)
}

/// Tells which attempt it is, once that is known.
pub(crate) fn note_attempt(attempt: u32) {
    Span::current().record("attempt", attempt);
}

/// Work that takes the present span along to whatever thread does it.
pub(crate) fn carried<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let span = Span::current();
    move || span.in_scope(work)
}
