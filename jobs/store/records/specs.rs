//! Specs: what a hint in the queue stands for. Written before the hint, read by the worker that takes it.
//!
//! A spec's name is the stage's digest, so a reader knows whether it holds what was meant. A lost or damaged spec costs
//! only time: planning the run writes it again. Decides nothing about stages.

use agrpo_spec::record::{self, Opened, RecordError};
use agrpo_spec::{StageDigest, StageSpec};
use bytes::Bytes;

use super::sealed::Place;
use crate::error::JobsError;
use crate::store::Store;

fn spec_name(stage: StageDigest) -> String {
    format!("specs/{stage}")
}

impl Store {
    /// Makes sure that a stage's spec is there; asks nothing where this process knows it is.
    pub async fn put_spec(&self, stage: StageDigest, spec: &StageSpec) -> Result<(), JobsError> {
        if self.specs.lock().contains(&stage) {
            return Ok(());
        }
        let (name, bytes) = (spec_name(stage), Bytes::from(record::seal(spec)));
        if let Some(found) = self.backend.create(&name, bytes.clone()).await? {
            match self.open_record(place(&name), found, |bytes| open(stage, bytes)).await {
                Err(JobsError::Data(error)) => {
                    tracing::warn!(%stage, error, "a damaged spec is written again");
                    self.backend.replace(&name, bytes).await?;
                }
                found => drop(found?),
            }
        }
        self.specs.lock().put(stage, spec.clone());
        Ok(())
    }

    /// The spec of a stage. Data error if it is missing or is not what its name says.
    pub async fn spec(&self, stage: StageDigest) -> Result<StageSpec, JobsError> {
        if let Some(spec) = self.specs.lock().get(&stage) {
            return Ok(spec.clone());
        }
        let name = spec_name(stage);
        let found = self.read_record(place(&name), |bytes| open(stage, bytes)).await?;
        let found = found.ok_or_else(|| {
            JobsError::Data(format!("{name} in {} is missing; {REMEDY}", self.url()))
        })?;
        self.specs.lock().put(stage, found.value.clone());
        Ok(found.value)
    }

    /// No longer takes it for known that a spec is there.
    pub fn invalidate_spec(&self, stage: StageDigest) {
        self.specs.lock().pop(&stage);
    }
}

const REMEDY: &str = "it is written again when its run is planned next: delete it and enqueue the run \
                      again if this is said twice";

pub(crate) fn place(name: &str) -> Place<'_> {
    Place { name, remedy: REMEDY }
}

pub(crate) fn open(stage: StageDigest, bytes: &[u8]) -> Result<Opened<StageSpec>, RecordError> {
    let opened: Opened<StageSpec> = match record::open(bytes) {
        // Planning the run gives the same spec again, so one without a valid seal need not be kept.
        Err(RecordError::Incompatible(why)) if !record::has_format(bytes) => {
            return Err(RecordError::Damaged(why));
        }
        opened => opened?,
    };
    match opened.value.digest() {
        digest if digest == stage => Ok(opened),
        digest => Err(RecordError::Damaged(format!("it holds the spec of {digest}"))),
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
        let missing = test.store.spec(stage).await.unwrap_err();
        assert!(missing.to_string().contains("is missing"), "{missing}");
        test.store.put_spec(stage, spec).await.unwrap();
        assert_eq!(test.reopened().spec(stage).await.unwrap(), *spec);
        let good = std::fs::read(test.path(&name)).unwrap();
        let other = String::from_utf8(good.clone()).unwrap().replace("\"seed\": 3", "\"seed\": 4");
        for damaged in [b"{".to_vec(), other.into_bytes()] {
            assert_ne!(damaged, good);
            std::fs::write(test.path(&name), damaged).unwrap();
            let error = test.reopened().spec(stage).await.unwrap_err();
            assert!(matches!(error, JobsError::Data(_)));
            assert!(error.to_string().starts_with(&format!("{name} in file://")), "{error}");
            assert!(error.to_string().contains("is corrupt"), "{error}");
            test.reopened().put_spec(stage, spec).await.unwrap();
            assert_eq!(std::fs::read(test.path(&name)).unwrap(), good);
        }
    }
}
