//! What is damaged of a run, moved out of the way, so that computing the run makes it again.
//!
//! Computes nothing, and touches neither what is sound nor what another version wrote. Everything is looked at
//! once more before it is moved; what is moved stays in `aside/` until a gc takes it. A run that is computed from
//! its start afterwards ([`crate::embedded::Local::repair`]) has lost nothing but time.

use agrpo_spec::{ArtifactDigest, RunId, StageDigest};

use crate::error::JobsError;
use crate::store::{Condition, Store};
use crate::verify::{Cure, Finding, verify};

/// Reads all of a run and moves to `aside/` what is damaged of it: blobs, records, and entries of its index that
/// name stages of others.
pub(crate) async fn set_damage_aside(store: &Store, run: RunId) -> Result<(), JobsError> {
    let report = verify(store, Some(run)).await?;
    for finding in report.corrupt.iter().filter(|finding| finding.cure != Cure::MoveAway) {
        one(store, run, finding).await?;
    }
    Ok(())
}

async fn one(store: &Store, run: RunId, finding: &Finding) -> Result<(), JobsError> {
    match finding.object.split_once('/') {
        Some(("cas", digest)) => {
            let Ok(digest) = digest.parse::<ArtifactDigest>() else { return Ok(()) };
            match store.condition(digest).await? {
                Condition::Corrupt(_) => store.set_blob_aside(digest).await,
                Condition::Sound(_) | Condition::Missing => Ok(()),
            }
        }
        Some(("stages", stage)) => {
            let Ok(stage) = stage.parse::<StageDigest>() else { return Ok(()) };
            store.manifest_or_aside(run, stage).await.map(drop)
        }
        _ => store.set_aside(&finding.object).await.map(drop),
    }
}
