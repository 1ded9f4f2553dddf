//! What a run's index and its notes name in place of the run's own stages.
//!
//! Walks the run's plan; the index is what is checked, and is not believed. Changes nothing.

use agrpo_spec::{RunId, StageDigest, StageKey};

use super::{Cure, Finding, VerifyReport};
use crate::planning::walk::Walk;
use agrpo_store::JobsError;
use agrpo_store::Store;

impl VerifyReport {
    /// Notes what the run's index and its notes name in place of the run's own stages.
    pub(super) async fn check_index(&mut self, store: &Store, id: RunId) -> Result<(), JobsError> {
        let mut walk = Walk::new(store.run(id).await?);
        walk.advance(store).await?;
        let finding = |object: String, expected: Option<StageDigest>| {
            let detail = match expected {
                Some(expected) => format!("the run has the stage {} there", expected.short()),
                None => "no record of the run leads there".to_owned(),
            };
            Finding { object, detail, run: Some(id), cure: Cure::Repair }
        };
        for (key, stage) in walk.wrong() {
            let object = format!("runs/{id}/stages/{key}.{stage}");
            self.note_corrupt(finding(object, walk.expected(key)));
        }
        for (object, stage) in store.noted_policies(id).await? {
            let stage = match stage {
                Ok(stage) => stage,
                Err(error) => {
                    self.note_error(object, Some(id), error)?;
                    continue;
                }
            };
            let key = object.rsplit('/').next().and_then(|key| key.parse::<StageKey>().ok());
            let expected = key.and_then(|key| walk.expected(key));
            let is_unknown = expected.is_none() && !walk.unreadable().is_empty();
            if stage.is_none() || (stage != expected && !is_unknown) {
                self.note_corrupt(finding(object, expected));
            }
        }
        Ok(())
    }
}
