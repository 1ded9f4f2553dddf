//! Notes of which stage made which policy of a run, read without a listing. Losing one costs time only.

use agrpo_spec::{ArtifactDigest, Manifest, RunId, StageDigest, StageKey};
use serde::{Deserialize, Serialize};

use super::json::{Fields, Found, Record, Records};
use crate::{JobsError, Result, paths, readable};

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

impl Fields for PolicyNote {}

/// The stage that a note names, if it counts.
type Noted = Result<Option<StageDigest>>;

/// The note, if it is sealed and of this run and place.
fn sealed_for(run: RunId, key: StageKey, found: Found<PolicyNote>) -> Option<PolicyNote> {
    let note = found.value;
    (found.is_sealed && note.run == run && note.key == key).then_some(note)
}

impl Records {
    /// Notes which stage made a policy; nothing to do for other stages. The caller has to have derived the stage from
    /// the run's plan, since workers plan on from the note. Not flushed to the disk.
    pub async fn note_policy(&self, run: RunId, key: StageKey, manifest: &Manifest) -> Result<()> {
        let policy = manifest.output("policy").filter(|_| key.makes_policy());
        let Some(policy) = policy else { return Ok(()) };
        let note = PolicyNote { run, key, stage: manifest.stage, policy };
        let name = paths::in_run(run, "policies", key);
        match self.get::<PolicyNote>(&name).await {
            Ok(Some(standing)) if standing == note => return Ok(()),
            // The note of another version stays; this version plans along the records instead.
            Err(JobsError::Incompatible(_)) => return Ok(()),
            Ok(_) | Err(JobsError::Data(_)) => {}
            Err(error) => return Err(error),
        }
        self.objects.hint(&name, note.seal().into()).await
    }

    /// The note of the update or chunk of fine-tuning at this place, if it is sealed and of this run and place.
    pub async fn policy_note(&self, run: RunId, key: StageKey) -> Result<Option<PolicyNote>> {
        let found = readable(self.find(&paths::in_run(run, "policies", key)).await)?;
        Ok(found.ok().flatten().and_then(|found| sealed_for(run, key, found)))
    }

    /// The stage of the run's update or chunk of fine-tuning at this place, if it is noted.
    pub async fn recorded_policy(&self, run: RunId, key: StageKey) -> Noted {
        Ok(self.policy_note(run, key).await?.map(|note| note.stage))
    }

    /// The names of the run's notes, each with the stage that it names, sealed or not, or why it cannot be read.
    pub async fn noted_policies(&self, run: RunId) -> Result<Vec<(String, Noted)>> {
        let mut found = vec![];
        for file in self.objects.list(&paths::of_run(run, "policies")).await? {
            let name = paths::in_run(run, "policies", &file);
            let stage = readable(self.noted_stage(run, &file, &name).await)?;
            found.push((name, stage));
        }
        Ok(found)
    }

    /// The stage that a note names, if it is one of this place, sealed or from before notes were sealed.
    pub(super) async fn noted_stage(&self, run: RunId, file: &str, name: &str) -> Noted {
        let Some(bytes) = self.objects.read(name).await? else { return Ok(None) };
        // From before notes were sealed: the digest alone.
        let plain = |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.trim().parse().ok();
        if let Some(stage) = plain(&bytes) {
            return Ok(Some(stage));
        }
        let Some(found) = self.open(name, bytes).await? else { return Ok(None) };
        let note = file.parse().ok().and_then(|key| sealed_for(run, key, found));
        Ok(note.map(|note| note.stage))
    }
}
