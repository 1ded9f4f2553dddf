//! What a run's sealed notes say without a listing: its policies, and the evaluations of these.
//!
//! Only looks. A note that is not sealed for the run and the place counts as none (`store/books.rs`).

use agrpo_spec::{ArtifactDigest, Base, Manifest, Plan, Run, StageKey, StageKind};

use crate::error::JobsError;
use crate::store::Store;

/// The last update of an iteration.
pub(crate) fn last_update(run: &Run, iteration: u32) -> StageKey {
    let inner = run.config().estimator.inner_updates;
    StageKey::new(StageKind::Update, iteration, 0).of_update(inner)
}

/// The last chunk of fine-tuning, where a run has any.
pub(crate) fn last_chunk(run: &Run) -> Option<StageKey> {
    match run.base() {
        Base::Checkpoint(_) => None,
        Base::Scratch(..) => {
            Some(StageKey::new(StageKind::Sft, run.sft_chunks().saturating_sub(1), 0))
        }
    }
}

/// The policy after so many iterations, 0 for the base, if it is noted. Costs one read.
pub(crate) async fn policy_at(
    store: &Store,
    run: &Run,
    iteration: u32,
) -> Result<Option<ArtifactDigest>, JobsError> {
    let key = match (iteration, run.base()) {
        (0, Base::Checkpoint(checkpoint)) => return Ok(Some(checkpoint.folder)),
        (0, Base::Scratch(..)) => last_chunk(run),
        _ => Some(last_update(run, iteration)),
    };
    let Some(key) = key else { return Ok(None) };
    Ok(store.policy_note(run.id(), key).await?.map(|note| note.policy))
}

/// The record of the run's evaluation after so many iterations, if there is one and its policy is noted.
pub async fn evaluation_at(
    store: &Store,
    run: &Run,
    iteration: u32,
) -> Result<Option<Manifest>, JobsError> {
    match policy_at(store, run, iteration).await? {
        Some(policy) => store.manifest(Plan::evaluation_of(run, policy).digest()).await,
        None => Ok(None),
    }
}
