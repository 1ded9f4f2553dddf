//! Small books about a run that workers keep beside its record: which versions it was begun with,
//! which stage made which policy, whether a person holds it. Losing one costs time only.

use agrpo_spec::{RunId, StageDigest, StageKey};
use bytes::Bytes;

use super::Store;
use crate::error::JobsError;
use crate::versions::Versions;

fn versions_name(run: RunId) -> String {
    format!("runs/{run}/versions.json")
}

fn policy_name(run: RunId, key: StageKey) -> String {
    format!("runs/{run}/policies/{key}")
}

impl Store {
    /// Says that from here on this program's versions compute the run, whatever did before: a person
    /// asked for it. Answers with the other versions that did, if they are known.
    pub(crate) async fn pin_versions(&self, run: RunId) -> Result<Option<Versions>, JobsError> {
        let (name, own) = (versions_name(run), Versions::own());
        let Some(found) = self.backend.create(&name, own.bytes().into()).await? else {
            return Ok(None);
        };
        let pinned = self.parse_versions(run, &found).ok();
        if pinned.as_ref() != Some(&own) {
            self.backend.replace(&name, own.bytes().into()).await?;
        }
        Ok(pinned.filter(|pinned| *pinned != own))
    }

    /// The versions that compute the run; pins this program's where there are none. Data error if the
    /// record is corrupt.
    pub(crate) async fn versions(&self, run: RunId) -> Result<Versions, JobsError> {
        if let Some(pinned) = self.pinned_versions(run).await? {
            return Ok(pinned);
        }
        let own = Versions::own();
        let found = self.backend.create(&versions_name(run), own.bytes().into()).await?;
        found.map_or(Ok(own), |found| self.parse_versions(run, &found))
    }

    /// The versions that compute the run, if somebody pinned them. Data error if the record is corrupt.
    pub(crate) async fn pinned_versions(&self, run: RunId) -> Result<Option<Versions>, JobsError> {
        let found = self.backend.read(&versions_name(run)).await?;
        found.map(|found| self.parse_versions(run, &found)).transpose()
    }

    fn parse_versions(&self, run: RunId, bytes: &[u8]) -> Result<Versions, JobsError> {
        serde_json::from_slice(bytes).map_err(|error| {
            JobsError::Data(format!(
                "{} in {} is corrupt: {error}; enqueue the run again: that writes it anew",
                versions_name(run),
                self.url()
            ))
        })
    }

    /// Notes which stage made a policy, so that a worker that knows its place in the run finds it
    /// without a listing. Written without waiting for the disk.
    pub(super) async fn record_policy(
        &self,
        run: RunId,
        key: StageKey,
        stage: StageDigest,
    ) -> Result<(), JobsError> {
        self.backend.hint(&policy_name(run, key), Bytes::from(format!("{stage}\n"))).await
    }

    /// Which stage is said to be the run's update or chunk of fine-tuning of this place; promises as
    /// little as the run's index does.
    pub async fn recorded_policy(
        &self,
        run: RunId,
        key: StageKey,
    ) -> Result<Option<StageDigest>, JobsError> {
        let found = self.backend.read(&policy_name(run, key)).await?;
        Ok(found.and_then(|found| std::str::from_utf8(&found).ok()?.trim().parse().ok()))
    }

    /// Whether the run's index says that the stage is done; as good as any index.
    pub(crate) async fn is_recorded(
        &self,
        run: RunId,
        key: StageKey,
        stage: StageDigest,
    ) -> Result<bool, JobsError> {
        let name = format!("runs/{run}/stages/{key}.{stage}");
        Ok(self.backend.size(&name).await?.is_some())
    }

    /// The other runs that have this name, sorted. Runs whose records are damaged have none.
    pub(crate) async fn namesakes(&self, run: RunId, name: &str) -> Result<Vec<RunId>, JobsError> {
        let others = self.runs().await?.into_iter().filter(|&other| other != run);
        let reads = others.map(|other| async move { (other, self.run(other).await) });
        let mut found = vec![];
        for (other, record) in futures::future::join_all(reads).await {
            match record {
                Ok(record) if record.config().name == name => found.push(other),
                Err(error @ (JobsError::Unavailable(_) | JobsError::Invalid(_))) => {
                    return Err(error);
                }
                _ => {}
            }
        }
        Ok(found)
    }
}
