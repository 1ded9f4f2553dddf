//! Quarantines damaged objects of a run, so that computing the run makes them again.
//!
//! Computes nothing, and touches neither sound objects nor those of another version. Checks each object once more
//! before it moves it to `aside/`, where a gc deletes it. Computing the run from its start afterwards
//! ([`crate::local::Local::run`]) costs only time.

use agrpo_spec::RunId;
use agrpo_store::{Condition, Store};

use crate::Result;
use crate::maintenance::verify::{Cure, verify};

/// Reads all of a run and moves its damaged objects to `aside/`: blobs, records, and entries of its index that name
/// stages of other runs.
pub(crate) async fn quarantine_damage(store: &Store, run: RunId) -> Result<()> {
    let report = verify(store, Some(run)).await?;
    for finding in report.corrupt.iter().filter(|finding| finding.cure != Cure::MoveAway) {
        let (folder, file) = finding.object.split_once('/').unwrap_or_default();
        match folder {
            "cas" => {
                if let Ok(digest) = file.parse()
                    && matches!(store.cas.condition(digest).await?, Condition::Corrupt(_))
                {
                    store.cas.quarantine(digest).await?;
                }
            }
            "stages" => {
                if let Ok(stage) = file.parse() {
                    store.records.manifest_or_quarantine(run, stage).await?;
                }
            }
            _ => drop(store.objects.quarantine(&finding.object).await?),
        }
    }
    Ok(())
}
