//! Reads every byte that a run, or the whole store, names, and compares it with its name.
//!
//! Reads from the store, not from a cache, several blobs at a time and large ones in pieces, so that memory stays
//! small for a store of any size. Changes nothing: `repair.rs` quarantines damaged objects. Orphans are left to a gc,
//! and outputs that retention deleted do not count as lost. An unreadable object is a finding and does not end
//! verification.

use std::collections::{BTreeMap, BTreeSet};

use agrpo_spec::{ArtifactDigest, RunId, StageDigest};
use agrpo_store::{Condition, FOLDERS, JobsError, OF_RUNS, Store, paths, readable};
use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use crate::maintenance::gc::{ObjectKind, everything};
use crate::maintenance::reachability::{Origin, Totals, reachable};
use crate::planning::steps::each;
use crate::{Result, planning::Walk};

/// Blobs read at a time; each below 64 MiB, or in pieces.
const AT_ONCE: usize = 4;

/// The remedy of a finding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cure {
    /// Repair the run: damaged objects are moved to `aside/`, lost ones computed again.
    #[default]
    Repair,
    /// Fetch or import its file again.
    Import,
    /// Move it away by hand: it is no regular file, or no folder.
    MoveAway,
}

/// A missing, damaged or misplaced object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its name in the store.
    pub object: String,
    /// Its role in a run, or what is wrong with it.
    #[serde(rename = "told")]
    pub detail: String,
    /// The run that it belongs to, if any.
    pub run: Option<RunId>,
    /// How to restore it.
    #[serde(skip)]
    pub cure: Cure,
}

impl Finding {
    /// A finding that a repair of the run restores.
    fn new(run: impl Into<Option<RunId>>, object: String, detail: String) -> Self {
        Self { object, detail, run: run.into(), cure: Cure::Repair }
    }
}

/// The result of a verification.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Runs that were followed.
    pub runs: u64,
    /// Stages of these runs that have a record.
    pub stages: u64,
    /// Blobs whose bytes fit their names.
    pub sound: Totals,
    /// Named by a run, but missing.
    pub missing: Vec<Finding>,
    /// Blobs and records whose bytes do not fit their names.
    pub corrupt: Vec<Finding>,
    /// Records of another version of agrpo, which are not touched; what they name is not checked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub incompatible: Vec<Finding>,
    /// Runs of other stage versions: their plan is unknown here, so their index is not checked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_followed: Vec<Finding>,
    /// Deleted by their runs' retention.
    pub dropped: Totals,
    /// Records of old versions without a checksum, which cannot be checked.
    #[serde(skip_serializing_if = "is_zero")]
    pub without_checksum: u64,
    /// Reached by no run: a gc deletes them after the grace period. Only in the report of a whole store.
    pub orphaned: Totals,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[derive(Default)]
struct Named {
    held: BTreeMap<ArtifactDigest, (RunId, Origin)>,
    dropped: BTreeMap<ArtifactDigest, u64>,
    /// The objects that the runs reach.
    reached: BTreeSet<String>,
    /// The objects of the runs themselves.
    objects: Vec<(Option<RunId>, String)>,
}

/// Verifies one run, or the whole store. Damage is in the report; an error means that the store could not be read.
pub async fn verify(store: &Store, run: Option<RunId>) -> Result<VerifyReport> {
    let mut report = VerifyReport::default();
    if report.note_misplaced(store, FOLDERS.map(str::to_owned).into(), None).await? {
        // Objects in these folders cannot be looked for.
        return Ok(report);
    }
    let runs = match run {
        Some(run) => vec![run],
        None => store.records.runs().await?,
    };
    let mut named = Named::default();
    for &id in &runs {
        report.follow(store, id, &mut named).await?;
    }
    report.check_records(store, run, &named).await?;
    report.check_blobs(store, &named).await?;
    for (&digest, &size) in &named.dropped {
        // An unreadable blob is a finding elsewhere.
        let is_there = readable(store.cas.has(digest).await)?.unwrap_or(true);
        if !named.held.contains_key(&digest) && !is_there {
            report.dropped.add(size);
        }
    }
    if run.is_none() {
        report.check_orphans(store, &named).await?;
    }
    for findings in [&mut report.missing, &mut report.corrupt, &mut report.incompatible] {
        for finding in findings.iter_mut() {
            // Neither a repair nor an import replaces it.
            if store.objects.is_no_file(&finding.object).await? {
                finding.cure = Cure::MoveAway;
            }
        }
        findings.sort_by(|one, two| one.object.cmp(&two.object));
    }
    Ok(report)
}

/// One of a report's lists of findings.
type Side = fn(&mut VerifyReport) -> &mut Vec<Finding>;
const MISSING: Side = |report| &mut report.missing;
const CORRUPT: Side = |report| &mut report.corrupt;
const INCOMPATIBLE: Side = |report| &mut report.incompatible;

impl VerifyReport {
    /// Whether everything was read and nothing is missing or corrupt.
    pub fn is_clean(&self) -> bool {
        self.findings().next().is_none()
    }

    /// All findings.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.missing.iter().chain(&self.corrupt).chain(&self.incompatible)
    }

    fn knows(&self, object: &str) -> bool {
        self.findings().any(|known| known.object == object)
    }

    /// The first finding about an object counts.
    fn note(&mut self, side: Side, finding: Finding) {
        if !self.knows(&finding.object) {
            side(self).push(finding);
        }
    }

    /// Notes why a record cannot be read. An error if the store cannot be read.
    fn note_error(&mut self, object: String, run: Option<RunId>, error: JobsError) -> Result<()> {
        let (side, detail) = match error {
            JobsError::Incompatible(detail) => (INCOMPATIBLE, detail),
            JobsError::Data(detail) | JobsError::Lost { message: detail, .. } => (CORRUPT, detail),
            error => return Err(error),
        };
        self.note(side, Finding::new(run, object, detail.to_string()));
        Ok(())
    }

    /// Notes what is no file, or no folder, in a local store.
    fn note_odd(&mut self, object: String, (kind, expected): (&str, &str), run: Option<RunId>) {
        let detail = format!("{kind}, expected {expected}");
        self.note(CORRUPT, Finding { object, detail, run, cure: Cure::MoveAway });
    }

    /// Notes what has the name of one of these folders and is none; returns whether there was any.
    async fn note_misplaced(
        &mut self,
        store: &Store,
        folders: Vec<String>,
        run: Option<RunId>,
    ) -> Result<bool> {
        let found = store.objects.misplaced(folders).await?;
        let any = !found.is_empty();
        for (object, kind) in found {
            self.note_odd(object, (kind, "a folder"), run);
        }
        Ok(any)
    }

    /// Collects what a run names, and notes damage of its own records.
    async fn follow(&mut self, store: &Store, id: RunId, named: &mut Named) -> Result<()> {
        let folders = OF_RUNS.map(|folder| paths::of_run(id, folder));
        let is_misplaced = self.note_misplaced(store, folders.into(), Some(id)).await?;
        let entries = match store.objects.entries(&paths::run(id)).await {
            Err(JobsError::Data(_)) if is_misplaced => vec![],
            entries => entries?,
        };
        for entry in entries {
            match entry.odd {
                Some(kind) => self.note_odd(entry.name, (kind, "a regular file"), Some(id)),
                None => named.objects.push((Some(id), entry.name)),
            }
        }
        if is_misplaced {
            return Ok(());
        }
        let object = paths::of_run(id, "run.json");
        if !store.records.has_run_record(id).await? {
            self.note(MISSING, Finding::new(id, object, "the run's own record".to_owned()));
            return Ok(());
        }
        let reach = match reachable(store, id, &BTreeMap::new()).await {
            Ok(reach) => reach,
            Err(error) => return self.note_error(object, Some(id), error),
        };
        self.runs += 1;
        for stage in &reach.without_record {
            let detail = reach.stages.get(stage).map(ToString::to_string).unwrap_or_default();
            self.note(MISSING, Finding::new(id, paths::manifest(*stage), detail));
        }
        for (stage, error) in &reach.corrupt {
            self.note_error(paths::manifest(*stage), Some(id), error.clone())?;
        }
        match store.records.incompatible_versions(id).await {
            Ok(Some(why)) => {
                let detail = format!("{why}; its index was not compared with its plan");
                self.not_followed.push(Finding::new(id, paths::run(id), detail));
            }
            // Named with the other records.
            Err(JobsError::Incompatible(_)) => {}
            Ok(None) | Err(JobsError::Data(_)) => self.check_index(store, id).await?,
            Err(error) => return Err(error),
        }
        named.reached.extend(reach.names());
        let sized = reach.dropped.into_iter();
        named.dropped.extend(sized.map(|(digest, origin)| (digest, origin.size.unwrap_or(0))));
        let held = reach.held.into_iter();
        named.held.extend(held.map(|(digest, origin)| (digest, (id, origin))));
        Ok(())
    }

    /// Reads every record of the runs and of their stages, and counts those without a checksum.
    async fn check_records(
        &mut self,
        store: &Store,
        asked: Option<RunId>,
        named: &Named,
    ) -> Result<()> {
        let recorded = store.records.all_stages().await?.into_iter();
        let is_reached = |stage: &StageDigest| named.reached.contains(&paths::manifest(*stage));
        self.stages = recorded.filter(is_reached).count() as u64;
        let records = named.reached.iter().filter(|name| !name.starts_with("cas/"));
        let mut names = named.objects.clone();
        names.extend(records.map(|name| (asked, name.clone())));
        names.retain(|(_, name)| !self.knows(name));
        let checks = each(names, |(run, name)| async move {
            let found = store.records.inspect(&name).await;
            Ok((run, name, found))
        });
        for (run, object, found) in checks.await? {
            match found {
                Ok(found) => self.without_checksum += u64::from(found == Some(false)),
                Err(error) => self.note_error(object, run, error)?,
            }
        }
        Ok(())
    }

    async fn check_blobs(&mut self, store: &Store, named: &Named) -> Result<()> {
        let checks = named.held.iter().map(|(digest, (run, origin))| async move {
            let condition = readable(store.cas.condition(*digest).await)?;
            Ok::<_, JobsError>((*digest, *run, origin, condition))
        });
        let mut checks = stream::iter(checks).buffer_unordered(AT_ONCE);
        while let Some((digest, run, origin, condition)) = checks.try_next().await? {
            let label = &origin.label;
            let (side, detail) = match condition {
                Ok(Condition::Sound(size)) if origin.size.is_none_or(|named| named == size) => {
                    self.sound.add(size);
                    continue;
                }
                Ok(Condition::Sound(size)) => {
                    let named = origin.size.unwrap_or_default();
                    (CORRUPT, format!("{label}: it has {size} bytes, and its record says {named}"))
                }
                Ok(Condition::Corrupt(_)) => (CORRUPT, label.clone()),
                Ok(Condition::Missing) => (MISSING, label.clone()),
                // It is no regular file.
                Err(error) => (CORRUPT, error.to_string()),
            };
            let cure = if origin.is_imported { Cure::Import } else { Cure::Repair };
            self.note(side, Finding { cure, ..Finding::new(run, paths::blob(digest), detail) });
        }
        Ok(())
    }

    /// Notes entries of the run's index and policy notes that name other stages than the run's own, which a walk over
    /// its plan finds.
    async fn check_index(&mut self, store: &Store, id: RunId) -> Result<()> {
        let mut walk = Walk::new(store.records.run(id).await?);
        walk.advance(store).await?;
        let finding = |object: String, expected: Option<StageDigest>| {
            let there =
                |stage: StageDigest| format!("the run has the stage {} there", stage.short());
            let nothing = || "no record of the run leads there".to_owned();
            Finding::new(id, object, expected.map_or_else(nothing, there))
        };
        for (key, stage) in walk.wrong() {
            self.note(CORRUPT, finding(paths::indexed(id, key, stage), walk.expected(key)));
        }
        for (object, stage) in store.records.noted_policies(id).await? {
            let stage = match stage {
                Ok(stage) => stage,
                Err(error) => {
                    self.note_error(object, Some(id), error)?;
                    continue;
                }
            };
            let key = object.rsplit('/').next().and_then(|key| key.parse().ok());
            let expected = key.and_then(|key| walk.expected(key));
            let is_unknown = expected.is_none() && !walk.unreadable().is_empty();
            if stage.is_none() || (stage != expected && !is_unknown) {
                self.note(CORRUPT, finding(object, expected));
            }
        }
        Ok(())
    }

    /// Counts what no run reaches, without reading it.
    async fn check_orphans(&mut self, store: &Store, named: &Named) -> Result<()> {
        for (kind, entry) in everything(store).await? {
            let is_swept =
                matches!(kind, ObjectKind::Manifests | ObjectKind::Specs | ObjectKind::Blobs);
            if let Some(kind) = entry.odd {
                self.note_odd(entry.name, (kind, "a regular file"), None);
            } else if is_swept && !named.reached.contains(&entry.name) {
                self.orphaned.add(entry.size);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
