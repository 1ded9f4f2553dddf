//! Reads every byte that a run, or the whole store, names, and compares it with its name.
//!
//! Reads from the store itself, several blobs at a time and large ones in pieces, so that memory stays small for a store
//! of any size. Changes nothing: `repair.rs` quarantines what is damaged. Orphans are left to a gc, and dropped outputs
//! are no loss. An object that cannot be read is a finding and does not end the verification.

mod index;

use std::collections::{BTreeMap, BTreeSet};

use agrpo_spec::{ArtifactDigest, RunId, StageDigest};
use futures::{StreamExt, TryStreamExt};
use serde::Serialize;

use crate::maintenance::gc::Tally;
use crate::maintenance::reachability::{Origin, Reachability, reachable};
use agrpo_store::JobsError;
use agrpo_store::{Condition, FOLDERS, OF_RUNS, Store, is_leftover};

/// Blobs read at a time; each below 64 MiB, or in pieces.
const AT_ONCE: usize = 4;

/// What mends a finding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cure {
    /// The run is repaired: what is damaged is moved to `aside/`, and what is lost is computed again.
    #[default]
    Repair,
    /// It came from a file, which has to be fetched or imported again.
    Import,
    /// It is no regular file, or no folder: a person moves it away.
    MoveAway,
}

/// An object that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its name in the store.
    pub object: String,
    /// What it is of a run, or what is wrong with it.
    #[serde(rename = "told")]
    pub detail: String,
    /// Whose it is; none where it belongs to no run.
    pub run: Option<RunId>,
    /// What mends it.
    #[serde(skip)]
    pub cure: Cure,
}

/// What a look at every byte found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Runs that were followed.
    pub runs: u64,
    /// Stages of these runs that have a record.
    pub stages: u64,
    /// Blobs that are what their names say.
    pub sound: Tally,
    /// Named by a run, and not there.
    pub missing: Vec<Finding>,
    /// There, with other bytes than the name says; records of runs and stages among them.
    pub corrupt: Vec<Finding>,
    /// Records of another version of agrpo: they are left alone, and what they name is not checked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub incompatible: Vec<Finding>,
    /// Runs that other versions of stages compute: their index is believed, as their plan is not known here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_followed: Vec<Finding>,
    /// Let go by their runs' retention.
    pub dropped: Tally,
    /// Records from before they had a checksum: what they say is believed as it stands.
    #[serde(skip_serializing_if = "is_zero")]
    pub without_checksum: u64,
    /// Reached by no run: a gc takes them when they are old enough. Only of a whole store.
    pub orphaned: Tally,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// The runs that are looked at, and what they name.
#[derive(Default)]
struct Named {
    held: BTreeMap<ArtifactDigest, (RunId, Origin)>,
    dropped: BTreeMap<ArtifactDigest, u64>,
    stages: BTreeSet<StageDigest>,
}

/// Checks one run, or everything in the store. What is wrong is in the report; an error means that the
/// store could not be read.
pub async fn verify(store: &Store, run: Option<RunId>) -> Result<VerifyReport, JobsError> {
    let mut report = VerifyReport::default();
    if report.note_misplaced(store, FOLDERS.map(str::to_owned).into(), None).await? {
        // Whatever would be looked for in there is not known to be missing.
        return Ok(report);
    }
    let runs = match run {
        Some(run) => vec![run],
        None => store.runs().await?,
    };
    let mut named = Named::default();
    for &id in &runs {
        report.follow(store, id, &mut named).await?;
    }
    report.check_records(store, run, &runs, &named.stages).await?;
    report.check_blobs(store, &named.held).await?;
    for (&digest, &size) in &named.dropped {
        // What is no blob is found as an object.
        let is_there = readable(store.has_blob(digest).await)?.unwrap_or(true);
        if !named.held.contains_key(&digest) && !is_there {
            report.dropped.add(size);
        }
    }
    if run.is_none() {
        report.check_orphans(store, &named).await?;
    }
    for findings in [&mut report.missing, &mut report.corrupt, &mut report.incompatible] {
        for finding in findings.iter_mut() {
            // Whatever it was found as: nothing that computes takes it away.
            if store.is_no_file(&finding.object).await? {
                finding.cure = Cure::MoveAway;
            }
        }
        findings.sort_by(|one, two| one.object.cmp(&two.object));
    }
    Ok(report)
}

impl VerifyReport {
    /// Whether everything was read and nothing is missing or corrupt.
    pub fn is_clean(&self) -> bool {
        self.missing.is_empty() && self.corrupt.is_empty() && self.incompatible.is_empty()
    }

    /// All that is wrong.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.missing.iter().chain(&self.corrupt).chain(&self.incompatible)
    }

    fn knows(&self, object: &str) -> bool {
        self.findings().any(|known| known.object == object)
    }

    /// The first finding about an object counts.
    fn note_missing(&mut self, finding: Finding) {
        if !self.knows(&finding.object) {
            self.missing.push(finding);
        }
    }

    fn note_corrupt(&mut self, finding: Finding) {
        if !self.knows(&finding.object) {
            self.corrupt.push(finding);
        }
    }

    /// Why a record cannot be read. An error where the store cannot be.
    fn note_error(
        &mut self,
        object: String,
        run: Option<RunId>,
        error: JobsError,
    ) -> Result<(), JobsError> {
        let known = self.knows(&object);
        let (side, detail) = match error {
            JobsError::Incompatible(detail) => (&mut self.incompatible, detail),
            JobsError::Data(detail) | JobsError::Lost { message: detail, .. } => {
                (&mut self.corrupt, detail)
            }
            error => return Err(error),
        };
        if !known {
            side.push(Finding { object, detail, run, cure: Cure::Repair });
        }
        Ok(())
    }

    /// Whatever is in a local store where it cannot be.
    fn note_odd(&mut self, object: String, (kind, expected): (&str, &str), run: Option<RunId>) {
        let detail = format!("{kind}, expected {expected}");
        self.note_corrupt(Finding { object, detail, run, cure: Cure::MoveAway });
    }

    /// Whether anything stands in the place of these folders.
    async fn note_misplaced(
        &mut self,
        store: &Store,
        folders: Vec<String>,
        run: Option<RunId>,
    ) -> Result<bool, JobsError> {
        let found = store.misplaced(folders).await?;
        let any = !found.is_empty();
        for (object, kind) in found {
            self.note_odd(object, (kind, "a folder"), run);
        }
        Ok(any)
    }

    /// Notes what a run names, and what is wrong with its own records.
    async fn follow(
        &mut self,
        store: &Store,
        id: RunId,
        named: &mut Named,
    ) -> Result<(), JobsError> {
        let folders = OF_RUNS.map(|folder| format!("runs/{id}/{folder}"));
        if self.note_misplaced(store, folders.into(), Some(id)).await? {
            return Ok(());
        }
        for entry in store.objects(&format!("runs/{id}")).await? {
            if let Some(kind) = entry.odd {
                self.note_odd(entry.name, (kind, "a regular file"), Some(id));
            }
        }
        let object = format!("runs/{id}/run.json");
        if !store.has_run_record(id).await? {
            let detail = "the run's own record".to_owned();
            self.note_missing(Finding { object, detail, run: Some(id), cure: Cure::Repair });
            return Ok(());
        }
        let reach = match reachable(store, id, &BTreeMap::new()).await {
            Ok(reach) => reach,
            Err(error) => return self.note_error(object, Some(id), error),
        };
        self.runs += 1;
        self.note_stages(id, &reach)?;
        match store.incompatible_versions(id).await {
            Ok(Some(why)) => {
                let detail = format!("{why}; its index was not compared with its plan");
                let object = format!("runs/{id}");
                let finding = Finding { object, detail, run: Some(id), cure: Cure::Repair };
                self.not_followed.push(finding);
            }
            // Named with the other records.
            Err(JobsError::Incompatible(_)) => {}
            Ok(None) | Err(JobsError::Data(_)) => self.check_index(store, id).await?,
            Err(error) => return Err(error),
        }
        named.stages.extend(reach.stages.into_keys());
        let sized = reach.dropped.into_iter();
        named.dropped.extend(sized.map(|(digest, origin)| (digest, origin.size.unwrap_or(0))));
        let held = reach.held.into_iter();
        named.held.extend(held.map(|(digest, origin)| (digest, (id, origin))));
        Ok(())
    }

    fn note_stages(&mut self, run: RunId, reach: &Reachability) -> Result<(), JobsError> {
        for stage in &reach.without_record {
            let detail = reach.stages.get(stage).map(ToString::to_string).unwrap_or_default();
            let object = format!("stages/{stage}");
            self.note_missing(Finding { object, detail, run: Some(run), cure: Cure::Repair });
        }
        for (stage, error) in &reach.corrupt {
            self.note_error(format!("stages/{stage}"), Some(run), error.clone())?;
        }
        Ok(())
    }

    /// Reads every record of these runs and stages, and counts those without a checksum.
    async fn check_records(
        &mut self,
        store: &Store,
        asked: Option<RunId>,
        runs: &[RunId],
        stages: &BTreeSet<StageDigest>,
    ) -> Result<(), JobsError> {
        let recorded: BTreeSet<StageDigest> = store.all_stages().await?.into_iter().collect();
        self.stages = stages.iter().filter(|stage| recorded.contains(stage)).count() as u64;
        let mut names: Vec<(Option<RunId>, String)> = vec![];
        for &run in runs {
            // A run whose folders are none was noted as such.
            let entries = readable(store.objects(&format!("runs/{run}")).await)?;
            let entries = entries.unwrap_or_default().into_iter();
            names.extend(entries.map(|entry| (Some(run), entry.name)));
        }
        for folder in ["stages", "specs"] {
            names.extend(stages.iter().map(|stage| (asked, format!("{folder}/{stage}"))));
        }
        names.retain(|(_, name)| !self.knows(name));
        let checks = names.into_iter().map(|(run, name)| async move {
            let found = store.inspect(&name).await;
            (run, name, found)
        });
        let mut checks = futures::stream::iter(checks).buffer_unordered(AT_ONCE);
        while let Some((run, object, found)) = checks.next().await {
            match found {
                Ok(found) => self.without_checksum += u64::from(found == Some(false)),
                Err(error) => self.note_error(object, run, error)?,
            }
        }
        Ok(())
    }

    async fn check_blobs(
        &mut self,
        store: &Store,
        held: &BTreeMap<ArtifactDigest, (RunId, Origin)>,
    ) -> Result<(), JobsError> {
        let checks = held.iter().map(|(digest, (run, origin))| async move {
            let condition = readable(store.condition(*digest).await)?;
            Ok::<_, JobsError>((*digest, *run, origin, condition))
        });
        let mut checks = futures::stream::iter(checks).buffer_unordered(AT_ONCE);
        while let Some((digest, run, origin, condition)) = checks.try_next().await? {
            let cure = if origin.is_imported { Cure::Import } else { Cure::Repair };
            let (object, detail) = (format!("cas/{digest}"), origin.label.clone());
            let mut finding = Finding { object, detail, run: Some(run), cure };
            match condition {
                Ok(Condition::Sound(size)) if origin.size.is_none_or(|named| named == size) => {
                    self.sound.add(size);
                }
                Ok(Condition::Sound(size)) => {
                    let named = origin.size.unwrap_or_default();
                    let detail = finding.detail;
                    finding.detail =
                        format!("{detail}: it has {size} bytes, and its record says {named}");
                    self.note_corrupt(finding);
                }
                Ok(Condition::Corrupt(_)) => self.note_corrupt(finding),
                Ok(Condition::Missing) => self.note_missing(finding),
                // What is no file says so itself.
                Err(detail) => self.note_corrupt(Finding { detail, ..finding }),
            }
        }
        Ok(())
    }

    /// What no run reaches is counted, not read: it goes with the next gc.
    async fn check_orphans(&mut self, store: &Store, named: &Named) -> Result<(), JobsError> {
        for folder in FOLDERS {
            for entry in store.objects(folder).await? {
                let file = entry.name.rsplit('/').next().unwrap_or_default();
                let is_reached = match folder {
                    "cas" => file.parse().is_ok_and(|blob| named.held.contains_key(&blob)),
                    "stages" | "specs" => {
                        file.parse().is_ok_and(|stage| named.stages.contains(&stage))
                    }
                    _ => true,
                };
                if let Some(kind) = entry.odd {
                    self.note_odd(entry.name, (kind, "a regular file"), None);
                } else if !is_reached && !is_leftover(&entry.name) {
                    self.orphaned.add(entry.size);
                }
            }
        }
        Ok(())
    }
}

/// What was found, or why it is none of what it should be. An error where the store cannot be read.
fn readable<T>(found: Result<T, JobsError>) -> Result<Result<T, String>, JobsError> {
    match found {
        Ok(found) => Ok(Ok(found)),
        Err(JobsError::Data(detail)) => Ok(Err(detail)),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
