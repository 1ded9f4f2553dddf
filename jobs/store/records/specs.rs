//! Specs: a hint in the queue refers to one. Written before the hint, read by the worker that takes it.
//!
//! A spec's name is the stage's digest, so a reader detects a wrong one. A lost or damaged spec costs only time:
//! planning the run writes it again. Decides nothing about stages.

use agrpo_spec::record::{self, Opened, RecordError};
use agrpo_spec::{StageDigest, StageSpec};

use super::json::{Record, Records, named};
use crate::{Result, paths, span::locked};

impl Record for StageSpec {
    const REMEDY: &'static str = "it is written again when its run is planned next: delete it and enqueue the run \
                                  again if this error comes back";

    fn seal(&self) -> Vec<u8> {
        record::seal(self)
    }

    fn open(name: &str, bytes: &[u8]) -> Result<Opened<Self>, RecordError> {
        let opened: Opened<Self> = match record::open(bytes) {
            // Planning the run writes the same spec again, so one without a valid seal can be replaced.
            Err(RecordError::Incompatible(why)) if !record::has_format(bytes) => {
                return Err(RecordError::Damaged(why));
            }
            opened => opened?,
        };
        match opened.value.digest() {
            digest if digest == named(name)? => Ok(opened),
            digest => Err(RecordError::Damaged(format!("it holds the spec of {digest}"))),
        }
    }
}

impl Records {
    /// Makes sure that a stage's spec is stored; sends no request where it is in this process's cache.
    pub async fn put_spec(&self, stage: StageDigest, spec: &StageSpec) -> Result<()> {
        if locked(&self.specs).contains(&stage) {
            return Ok(());
        }
        self.create(&paths::spec(stage), spec).await?;
        locked(&self.specs).put(stage, spec.clone());
        Ok(())
    }

    /// The spec of a stage. Data error if it is missing or has another digest than its name.
    pub async fn spec(&self, stage: StageDigest) -> Result<StageSpec> {
        if let Some(spec) = locked(&self.specs).get(&stage) {
            return Ok(spec.clone());
        }
        let spec: StageSpec = self.need(&paths::spec(stage)).await?;
        locked(&self.specs).put(stage, spec.clone());
        Ok(spec)
    }

    /// Removes a spec from the cache.
    pub fn invalidate_spec(&self, stage: StageDigest) {
        locked(&self.specs).pop(&stage);
    }
}

#[cfg(test)]
mod tests {
    use agrpo_spec::Plan;

    use crate::JobsError;
    use crate::testing::{TestStore, run};

    #[tokio::test]
    async fn a_spec_is_checked_against_its_name_and_written_again_where_it_is_damaged() {
        let test = TestStore::file().await;
        let plan = Plan::new(run());
        let spec = plan.pending().values().next().unwrap();
        let (stage, name) = (spec.digest(), format!("specs/{}", spec.digest()));
        let missing = test.store.records.spec(stage).await.unwrap_err();
        assert!(missing.to_string().contains("is missing"), "{missing}");
        test.store.records.put_spec(stage, spec).await.unwrap();
        assert_eq!(test.reopened().records.spec(stage).await.unwrap(), *spec);
        let good = std::fs::read(test.path(&name)).unwrap();
        let other = String::from_utf8(good.clone()).unwrap().replace("\"seed\": 3", "\"seed\": 4");
        for damaged in [b"{".to_vec(), other.into_bytes()] {
            assert_ne!(damaged, good);
            std::fs::write(test.path(&name), damaged).unwrap();
            let error = test.reopened().records.spec(stage).await.unwrap_err();
            assert!(matches!(error, JobsError::Data(_)));
            assert!(error.to_string().starts_with(&format!("{name} in file://")), "{error}");
            assert!(error.to_string().contains("is corrupt"), "{error}");
            test.reopened().records.put_spec(stage, spec).await.unwrap();
            assert_eq!(std::fs::read(test.path(&name)).unwrap(), good);
        }
    }
}
