//! Quarantines what is damaged of a run, so that computing the run makes it again.
//!
//! Computes nothing, and touches neither what is sound nor what another version wrote. Looks at everything once more
//! before it moves it to `aside/`, where it stays until a gc takes it. A run that is computed from its start afterwards
//! ([`crate::local::Local::repair`]) has lost nothing but time.

use agrpo_spec::{ArtifactDigest, RunId, StageDigest};

use crate::maintenance::verify::{Cure, Finding, verify};
use agrpo_store::JobsError;
use agrpo_store::{Condition, Store};

/// Reads all of a run and moves to `aside/` what is damaged of it: blobs, records, and entries of its index that
/// name stages of others.
pub(crate) async fn quarantine_damage(store: &Store, run: RunId) -> Result<(), JobsError> {
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
                Condition::Corrupt(_) => store.quarantine_blob(digest).await,
                Condition::Sound(_) | Condition::Missing => Ok(()),
            }
        }
        Some(("stages", stage)) => {
            let Ok(stage) = stage.parse::<StageDigest>() else { return Ok(()) };
            store.manifest_or_quarantine(run, stage).await.map(drop)
        }
        _ => store.quarantine(&finding.object).await.map(drop),
    }
}
