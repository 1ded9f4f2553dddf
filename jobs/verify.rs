//! Every byte that a run, or the whole store, names, read and compared with its name.
//!
//! Reads from the store itself, several blobs at a time and large ones in pieces, so memory stays small
//! however much there is. Changes nothing: what is missing or corrupt is made again by whoever next
//! needs it, what is orphaned goes with a gc, and what a run has let go is no loss.

use std::collections::{BTreeMap, BTreeSet};

use agrpo_spec::{ArtifactDigest, RunId, StageDigest, StageKey};
use futures::{StreamExt, TryStreamExt};
use serde::Serialize;

use crate::error::JobsError;
use crate::gc::Tally;
use crate::reach::{Origin, Reach, reach};
use crate::store::{Condition, Store, is_leftover};
use crate::walk::Walk;

/// Blobs read at a time; each below 64 MiB, or in pieces.
const AT_ONCE: usize = 4;

/// An object that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its name in the store.
    pub object: String,
    /// What it is of a run, or what is wrong with it.
    pub told: String,
    /// Whose it is; none where it belongs to no run.
    pub run: Option<RunId>,
}

/// What a look at every byte found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Runs that were followed.
    pub runs: u64,
    /// Stages with a record.
    pub stages: u64,
    /// Blobs that are what their names say.
    pub sound: Tally,
    /// Named by a run, and not there.
    pub missing: Vec<Finding>,
    /// There, with other bytes than the name says; records of runs and stages among them.
    pub corrupt: Vec<Finding>,
    /// Let go by their runs' retention.
    pub dropped: Tally,
    /// Records from before they had a checksum: what they say is believed as it stands.
    #[serde(skip_serializing_if = "is_zero")]
    pub without_checksum: u64,
    /// Reached by no run: a gc takes them when they are old enough. Only of a whole store.
    pub orphaned: Tally,
}

impl VerifyReport {
    /// Whether nothing is missing or corrupt.
    pub fn is_clean(&self) -> bool {
        self.missing.is_empty() && self.corrupt.is_empty()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Checks one run, or everything in the store. What is wrong is in the report; an error means that the
/// store could not be read.
pub async fn verify(store: &Store, run: Option<RunId>) -> Result<VerifyReport, JobsError> {
    let mut report = VerifyReport::default();
    let runs = match run {
        Some(run) => vec![run],
        None => store.runs().await?,
    };
    let mut held: BTreeMap<ArtifactDigest, (RunId, Origin)> = BTreeMap::new();
    let mut let_go: BTreeMap<ArtifactDigest, u64> = BTreeMap::new();
    let mut stages = BTreeSet::new();
    let ids: BTreeSet<RunId> = runs.iter().copied().collect();
    for id in runs {
        match reach(store, id, &BTreeMap::new()).await {
            Ok(reach) => {
                report.runs += 1;
                report.note_records(id, &reach);
                report.check_index(store, id).await?;
                stages.extend(reach.stages.into_keys());
                let sized = reach.let_go.into_iter();
                let_go.extend(sized.map(|(digest, origin)| (digest, origin.size.unwrap_or(0))));
                let named = reach.held.into_iter();
                held.extend(named.map(|(digest, origin)| (digest, (id, origin))));
            }
            Err(JobsError::Data(told) | JobsError::Incompatible(told)) => {
                let object = format!("runs/{id}/run.json");
                report.corrupt.push(Finding { object, told, run: Some(id) });
            }
            Err(error) => return Err(error),
        }
    }
    report.check_records(store, run, &ids, &stages).await?;
    report.check_blobs(store, &held).await?;
    for (digest, size) in let_go {
        if !held.contains_key(&digest) && !store.has_blob(digest).await? {
            report.dropped.add(size);
        }
    }
    if run.is_none() {
        report.check_orphans(store, &stages, &held).await?;
    }
    let by_name = |one: &Finding, two: &Finding| one.object.cmp(&two.object);
    report.missing.sort_by(by_name);
    report.corrupt.sort_by(by_name);
    Ok(report)
}

impl VerifyReport {
    fn note_records(&mut self, run: RunId, reach: &Reach) {
        for stage in &reach.without_record {
            let place = reach.stages.get(stage).map(ToString::to_string).unwrap_or_default();
            let object = format!("stages/{stage}");
            self.missing.push(Finding { object, told: place, run: Some(run) });
        }
        for (stage, error) in &reach.corrupt {
            let (object, told) = (format!("stages/{stage}"), error.to_string());
            self.corrupt.push(Finding { object, told, run: Some(run) });
        }
    }

    /// Walks the run's plan, and tells what its index and its notes name in place of the run's own stages.
    async fn check_index(&mut self, store: &Store, id: RunId) -> Result<(), JobsError> {
        let mut walk = Walk::new(store.run(id).await?);
        walk.advance(store).await?;
        walk.finish(store).await?;
        let told = |expected: Option<StageDigest>| match expected {
            Some(expected) => format!("the run has the stage {} there", expected.short()),
            None => "no record of the run leads there".to_owned(),
        };
        for (key, stage) in walk.wrong() {
            let object = format!("runs/{id}/stages/{key}.{stage}");
            self.corrupt.push(Finding { object, told: told(walk.expected(key)), run: Some(id) });
        }
        for (object, stage) in store.noted_policies(id).await? {
            let key = object.rsplit('/').next().and_then(|key| key.parse::<StageKey>().ok());
            let expected = key.and_then(|key| walk.expected(key));
            let is_unknown = expected.is_none() && !walk.unreadable().is_empty();
            if stage.is_none() || (stage != expected && !is_unknown) {
                self.corrupt.push(Finding { object, told: told(expected), run: Some(id) });
            }
        }
        Ok(())
    }

    /// Reads every record of these runs and stages, and counts those without a checksum. Those of stages
    /// that runs reach were read before; that one is missing is no fault of the others.
    async fn check_records(
        &mut self,
        store: &Store,
        asked: Option<RunId>,
        runs: &BTreeSet<RunId>,
        stages: &BTreeSet<StageDigest>,
    ) -> Result<(), JobsError> {
        let recorded: BTreeSet<StageDigest> = store.all_stages().await?.into_iter().collect();
        self.stages = stages.iter().filter(|stage| recorded.contains(stage)).count() as u64;
        let mut names: Vec<(Option<RunId>, String)> = vec![];
        for &run in runs {
            let entries = store.objects(&format!("runs/{run}")).await?;
            names.extend(entries.into_iter().map(|entry| (Some(run), entry.name)));
        }
        names.extend(stages.iter().map(|stage| (asked, format!("stages/{stage}"))));
        let specs = store.objects("specs").await?.into_iter().filter(|entry| {
            let stage = entry.name.rsplit('/').next().and_then(|stage| stage.parse().ok());
            asked.is_none() || stage.is_some_and(|stage| stages.contains(&stage))
        });
        names.extend(specs.map(|entry| (asked, entry.name)));
        let checks = names.into_iter().map(|(run, name)| async move {
            let found = store.inspect(&name).await;
            (run, name, found)
        });
        let mut checks = futures::stream::iter(checks).buffer_unordered(AT_ONCE);
        while let Some((run, object, found)) = checks.next().await {
            match found {
                Ok(found) => self.without_checksum += u64::from(found == Some(false)),
                Err(JobsError::Data(told) | JobsError::Incompatible(told)) => {
                    if self.corrupt.iter().all(|known| known.object != object) {
                        self.corrupt.push(Finding { object, told, run });
                    }
                }
                Err(error) => return Err(error),
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
            let object = format!("cas/{digest}");
            let told = origin.told.clone();
            let condition = match condition {
                Ok(condition) => condition,
                Err(told) => {
                    self.corrupt.push(Finding { object, told, run: Some(run) });
                    continue;
                }
            };
            match condition {
                Condition::Sound(size) if origin.size.is_none_or(|named| named == size) => {
                    self.sound.add(size);
                }
                Condition::Sound(size) => {
                    let told = format!("{told}: has {size} bytes, and its record says otherwise");
                    self.corrupt.push(Finding { object, told, run: Some(run) });
                }
                Condition::Corrupt(_) => {
                    self.corrupt.push(Finding { object, told, run: Some(run) });
                }
                Condition::Missing => {
                    self.missing.push(Finding { object, told, run: Some(run) });
                }
            }
        }
        Ok(())
    }

    /// What no run reaches is counted, not read: it goes with the next gc.
    async fn check_orphans(
        &mut self,
        store: &Store,
        stages: &BTreeSet<StageDigest>,
        held: &BTreeMap<ArtifactDigest, (RunId, Origin)>,
    ) -> Result<(), JobsError> {
        for folder in ["stages", "specs", "cas"] {
            for entry in store.objects(folder).await? {
                let file = entry.name.rsplit('/').next().unwrap_or_default();
                let is_reached = match folder {
                    "cas" => file.parse().is_ok_and(|blob| held.contains_key(&blob)),
                    _ => file.parse().is_ok_and(|stage| stages.contains(&stage)),
                };
                if let Some(kind) = entry.odd {
                    self.note_odd(entry.name, kind);
                } else if !is_reached && !is_leftover(&entry.name) {
                    self.orphaned.add(entry.size);
                }
            }
        }
        for entry in store.objects("runs").await? {
            if let Some(kind) = entry.odd {
                self.note_odd(entry.name, kind);
            }
        }
        Ok(())
    }

    /// Whatever lies in a local store and is no file, unless whoever needed it said so already.
    fn note_odd(&mut self, object: String, kind: &str) {
        if self.corrupt.iter().all(|finding| finding.object != object) {
            let told = format!("{kind}, no file");
            self.corrupt.push(Finding { object, told, run: None });
        }
    }
}

/// What was found, or why it is none of what it should be. An error where the store cannot be read.
fn readable<T>(found: Result<T, JobsError>) -> Result<Result<T, String>, JobsError> {
    match found {
        Ok(found) => Ok(Ok(found)),
        Err(JobsError::Data(told)) => Ok(Err(told)),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
