//! Metadata that workers keep beside a run's record: the versions that it was begun with, and which stage made which
//! policy. Losing it costs time only.

use agrpo_spec::{ArtifactDigest, Manifest, RunId, StageDigest, StageKey, StageKind, record};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use super::sealed::{Place, REPAIR};
use crate::error::JobsError;
use crate::store::Store;
use crate::versions::Versions;

/// Objects deleted at a time.
const DELETIONS: usize = 32;

fn versions_name(run: RunId) -> String {
    format!("runs/{run}/versions.json")
}

fn policy_name(run: RunId, key: StageKey) -> String {
    format!("runs/{run}/policies/{key}")
}

/// Which stage made a policy of a run, and where it stands there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyNote {
    /// The run.
    pub run: RunId,
    /// The stage's place in the run.
    pub key: StageKey,
    /// The stage.
    pub stage: StageDigest,
    /// The policy that it made.
    pub policy: ArtifactDigest,
}

impl Store {
    /// Says that from here on this program's versions compute the run, whatever did before: a person
    /// asked for it. Answers with the other versions that did, if they are known.
    pub async fn pin_versions(&self, run: RunId) -> Result<Option<Versions>, JobsError> {
        let (name, own) = (versions_name(run), Versions::own());
        let Some(found) = self.backend.create(&name, record::seal(&own).into()).await? else {
            return Ok(None);
        };
        let pinned = match self.opened_versions(run, found).await {
            Ok(pinned) => pinned,
            // A person asked for the run: what is damaged is written anew.
            Err(JobsError::Data(_)) => None,
            Err(error) => return Err(error),
        };
        if pinned.as_ref() != Some(&own) {
            let is_other = pinned.is_some();
            let stale = if is_other { self.index_of(run).await? } else { vec![] };
            // First the pin: until it stands, the index is all that says what the others' run needs.
            self.replace_record(&name, &own).await?;
            self.clear_index(run, stale).await?;
        }
        Ok(pinned.filter(|pinned| *pinned != own))
    }

    /// The names of all entries of the run's index and of its notes of policies.
    async fn index_of(&self, run: RunId) -> Result<Vec<String>, JobsError> {
        let mut names = vec![];
        for folder in ["stages", "policies"].map(|folder| format!("runs/{run}/{folder}")) {
            let files = self.backend.list(&folder).await?.into_iter();
            names.extend(files.map(|file| format!("{folder}/{file}")));
        }
        Ok(names)
    }

    /// Forgets what the run's index and its notes name: the plan has other stages now. Those that it still has
    /// are found by their records. Notes of a newer format stay.
    async fn clear_index(&self, run: RunId, names: Vec<String>) -> Result<(), JobsError> {
        if names.is_empty() {
            return Ok(());
        }
        tracing::warn!(
            run = run.short(),
            entries = names.len(),
            "other stage versions computed this run: its index is emptied, and a gc takes what only they computed"
        );
        let deletions = names.into_iter().map(|name| async move {
            if name.contains("/stages/") {
                return self.backend.delete(&name).await;
            }
            match self.delete_record::<PolicyNote>(&name).await {
                Err(JobsError::Incompatible(_)) => Ok(()),
                deleted => deleted,
            }
        });
        let deletions = stream::iter(deletions.collect::<Vec<_>>()).buffer_unordered(DELETIONS);
        deletions.try_collect::<Vec<()>>().await.map(drop)
    }

    /// The versions that compute the run; pins this program's where there are none. Data error if the
    /// record is corrupt.
    pub async fn versions(&self, run: RunId) -> Result<Versions, JobsError> {
        if let Some(pinned) = self.pinned_versions(run).await? {
            return Ok(pinned);
        }
        let own = Versions::own();
        let bytes = record::seal(&own).into();
        match self.backend.create(&versions_name(run), bytes).await? {
            Some(found) => Ok(self.opened_versions(run, found).await?.unwrap_or(own)),
            None => Ok(own),
        }
    }

    /// The versions that compute the run, if they are pinned. Data error if the record is corrupt.
    pub async fn pinned_versions(&self, run: RunId) -> Result<Option<Versions>, JobsError> {
        match self.backend.read(&versions_name(run)).await? {
            Some(found) => self.opened_versions(run, found).await,
            None => Ok(None),
        }
    }

    /// Why this program cannot derive the run's stages: other versions of them are pinned.
    pub async fn incompatible_versions(&self, run: RunId) -> Result<Option<String>, JobsError> {
        let pinned = self.pinned_versions(run).await?;
        Ok(pinned.and_then(|pinned| Versions::own().misses(&pinned)))
    }

    /// Refuses a run of which this program cannot say what its stages are.
    pub async fn require_own_versions(&self, run: RunId) -> Result<(), JobsError> {
        match self.incompatible_versions(run).await? {
            Some(why) => Err(JobsError::Incompatible(format!("run {}: {why}", run.short()))),
            None => Ok(()),
        }
    }

    async fn opened_versions(
        &self,
        run: RunId,
        found: Bytes,
    ) -> Result<Option<Versions>, JobsError> {
        let name = versions_name(run);
        let place = Place { name: &name, remedy: "enqueue the run again: that writes it anew" };
        let opened = self.open_record(place, found, record::open).await?;
        Ok(opened.map(|record| record.value))
    }

    /// Notes which stage made a policy, so that a worker that knows its place in the run finds it
    /// without a listing. Only for who derived the stage from the run's plan: others go on from here.
    /// Written without waiting for the disk; nothing to do for stages that make no policy.
    pub async fn note_policy(
        &self,
        run: RunId,
        key: StageKey,
        manifest: &Manifest,
    ) -> Result<(), JobsError> {
        let moves = matches!(key.kind, StageKind::Sft | StageKind::Update);
        let Some(policy) = manifest.output("policy").filter(|_| moves) else { return Ok(()) };
        let note = PolicyNote { run, key, stage: manifest.stage, policy };
        let name = policy_name(run, key);
        match self.record::<PolicyNote>(Place { name: &name, remedy: "" }).await {
            Ok(Some(standing)) if standing == note => return Ok(()),
            // The note of another version stays; who cannot read it walks along the records.
            Err(JobsError::Incompatible(_)) => return Ok(()),
            Ok(_) | Err(JobsError::Data(_)) => {}
            Err(error) => return Err(error),
        }
        self.backend.hint(&name, record::seal(&note).into()).await
    }

    /// What was noted of the run's update or chunk of fine-tuning of this place. A note that is not sealed
    /// for this run and place counts as none: a walk from the run's start finds what it should say.
    pub async fn policy_note(
        &self,
        run: RunId,
        key: StageKey,
    ) -> Result<Option<PolicyNote>, JobsError> {
        let name = policy_name(run, key);
        let place = Place { name: &name, remedy: "" };
        let found = match self.read_record(place, record::open::<PolicyNote>).await {
            Err(JobsError::Data(_) | JobsError::Incompatible(_)) => None,
            found => found?,
        };
        let is_ours = |note: &PolicyNote| note.run == run && note.key == key;
        Ok(found.filter(|found| found.is_sealed).map(|found| found.value).filter(is_ours))
    }

    /// Which stage is the run's update or chunk of fine-tuning of this place, as far as that is noted.
    pub async fn recorded_policy(
        &self,
        run: RunId,
        key: StageKey,
    ) -> Result<Option<StageDigest>, JobsError> {
        Ok(self.policy_note(run, key).await?.map(|note| note.stage))
    }

    /// The names of the run's notes, and which stages they name, sealed or not. Of each the error where it cannot
    /// be read.
    pub async fn noted_policies(
        &self,
        run: RunId,
    ) -> Result<Vec<(String, Result<Option<StageDigest>, JobsError>)>, JobsError> {
        let mut found = vec![];
        for file in self.backend.list(&format!("runs/{run}/policies")).await? {
            let name = format!("runs/{run}/policies/{file}");
            let stage = self.noted_stage(run, &file, &name).await;
            if let Err(error @ (JobsError::Unavailable(_) | JobsError::Invalid(_))) = stage {
                return Err(error);
            }
            found.push((name, stage));
        }
        Ok(found)
    }

    /// The stage that a note names, if it is one of this place, sealed or from before notes were sealed.
    pub(crate) async fn noted_stage(
        &self,
        run: RunId,
        file: &str,
        name: &str,
    ) -> Result<Option<StageDigest>, JobsError> {
        let Some(bytes) = self.backend.read(name).await? else { return Ok(None) };
        // From before notes were sealed: the digest alone.
        let plain = |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.trim().parse().ok();
        if let Some(stage) = plain(&bytes) {
            return Ok(Some(stage));
        }
        let place = Place { name, remedy: REPAIR };
        let found = self.open_record(place, bytes, record::open::<PolicyNote>).await?;
        let key = file.parse::<StageKey>().ok();
        let is_ours = |note: &PolicyNote| note.run == run && Some(note.key) == key;
        let note = found.filter(|found| found.is_sealed).map(|found| found.value);
        Ok(note.filter(is_ours).map(|note| note.stage))
    }

    /// Says once of a run that an entry of its index names a stage that is not the run's.
    pub fn log_incompatible(&self, run: RunId, key: StageKey, stage: StageDigest) {
        let folder = format!("runs/{run}/stages");
        if self.news.is_news(&format!("foreign {folder}")) {
            let entry = format!("{folder}/{key}.{stage}");
            tracing::warn!(
                entry,
                "the run has another stage in this place: the entry is ignored, as are all others like it; \
                 agrpo verify lists them"
            );
        }
    }

    /// Whether the run's index says that the stage is done; as good as any index.
    pub async fn is_recorded(
        &self,
        run: RunId,
        key: StageKey,
        stage: StageDigest,
    ) -> Result<bool, JobsError> {
        let name = format!("runs/{run}/stages/{key}.{stage}");
        Ok(self.backend.size(&name).await?.is_some())
    }

    /// The other runs that have this name, sorted. Runs whose records are damaged have none.
    pub async fn namesakes(&self, run: RunId, name: &str) -> Result<Vec<RunId>, JobsError> {
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
