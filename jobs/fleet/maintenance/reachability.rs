//! What a run reaches: its stages, the blobs that it holds, and the outputs that its retention deleted.
//!
//! Follows the run's index, and walks its plan from the start along the records, which finds everything even if the
//! index is lost. The plan of a run of other stage versions is unknown here, so everything that its index names
//! counts. Changes nothing.

use std::collections::BTreeMap;

use agrpo_spec::{
    ArtifactDigest, Base, FolderListing, Plan, Run, RunId, StageDigest, StageKey, StageSpec,
};
use agrpo_store::{DroppedOutputs, JobsError, Store, paths, readable};
use serde::Serialize;

use crate::Result;
use crate::planning::steps::{Record, Steps, each, record, take};

/// A number of objects and their size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// How many.
    pub objects: u64,
    /// Their total length.
    pub bytes: u64,
}

impl Totals {
    pub(crate) fn add(&mut self, bytes: u64) {
        self.objects += 1;
        self.bytes += bytes;
    }
}

/// Where a blob comes from, as reports show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// `update-000003 policy/model.safetensors`, or the role of the blob as an input.
    pub(crate) label: String,
    /// Its length, if a record has it.
    pub(crate) size: Option<u64>,
    /// Whether it was imported, so that no stage makes it.
    pub(crate) is_imported: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Reachability {
    /// With their keys, and with pending stages. An entry of the index is left out if the plan has another stage with
    /// its key, and counts if the plan has not reached its key.
    pub(crate) stages: BTreeMap<StageDigest, StageKey>,
    /// Blobs that the run needs or retains.
    pub(crate) held: BTreeMap<ArtifactDigest, Origin>,
    /// Blobs that its retention deleted, or may delete.
    pub(crate) dropped: BTreeMap<ArtifactDigest, Origin>,
    /// Stages in the index that have no record.
    pub(crate) without_record: Vec<StageDigest>,
    /// Stages whose record cannot be read, with the reason.
    pub(crate) corrupt: Vec<(StageDigest, JobsError)>,
    /// Why the listing of the run's checkpoint cannot be read, if so.
    pub(crate) unlisted: Option<String>,
}

/// Finds everything that a run reaches. Outputs in `due` count as deleted by retention, though no note names them yet.
/// Data error if the run's own record is missing or corrupt.
pub(crate) async fn reachable(
    store: &Store,
    id: RunId,
    due: &BTreeMap<StageDigest, DroppedOutputs>,
) -> Result<Reachability> {
    let run = store.records.run(id).await?;
    let mut index = store.records.recorded_entries(id).await?;
    let read = |stage| record(store, stage);
    let mut steps = Steps::ahead(index.iter().map(|(_, stage)| *stage), read).await?;
    let mut plan = Plan::new(run.clone());
    let mut own: BTreeMap<StageKey, StageDigest> = BTreeMap::new();
    while let Some(((key, stage), record)) = steps.next(&plan, |_| true, read).await? {
        if let Ok(Some(manifest)) = &record {
            // Readers of a missing output report it.
            take(&mut plan, key, manifest).ok();
        }
        own.insert(key, stage);
        steps.ahead.insert(stage, record);
    }
    let mut records = steps.ahead;
    if !is_of_other_versions(store, id).await? {
        index.retain(|(key, stage)| own.get(key).is_none_or(|own| own == stage));
    }
    let is_absent = |stage: &StageDigest| !matches!(records.get(stage), Some(Ok(Some(_)) | Err(_)));
    let recorded = own.iter().filter(|(_, stage)| !is_absent(stage)).map(|(key, _)| key);
    let done = index.iter().map(|(key, _)| key).chain(recorded);
    let newest = Plan::newest_iteration(&run, done);
    let absent = index.iter().map(|(_, stage)| *stage).filter(is_absent);
    let mut reach = Reachability { without_record: absent.collect(), ..Reachability::default() };
    reach.stages = index.into_iter().chain(own).map(|(key, stage)| (stage, key)).collect();
    let noted = store.records.stages_with_dropped(id).await?;
    let notes =
        each(noted, |stage| async move { Ok((stage, store.records.dropped(id, stage).await?)) });
    let mut dropped: BTreeMap<StageDigest, DroppedOutputs> = due.clone();
    for (stage, note) in notes.await? {
        let (Some(note), Some(&key)) = (note, reach.stages.get(&stage)) else { continue };
        dropped.insert(stage, note.within(&run, key, newest));
    }
    records.retain(|stage, _| reach.stages.contains_key(stage));
    reach.hold(records, &dropped, &plan);
    let (named, unlisted) = imports(store, &run).await?;
    reach.unlisted = unlisted;
    for (label, digest, size) in named {
        reach.dropped.remove(&digest);
        let held = reach.held.entry(digest);
        let held = held.or_insert(Origin { label, size, is_imported: true });
        // A blob without a length is in no record's outputs.
        held.is_imported |= held.size.is_none();
    }
    Ok(reach)
}

/// Whether other versions of stages compute the run, or may because its record of versions cannot be read.
pub(crate) async fn is_of_other_versions(store: &Store, id: RunId) -> Result<bool> {
    Ok(!matches!(readable(store.records.incompatible_versions(id).await)?, Ok(None)))
}

impl Reachability {
    /// The names of the objects that it reaches: records and specs of stages, and blobs.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        let of_stage = |stage: &StageDigest| [paths::manifest(*stage), paths::spec(*stage)];
        let blobs = self.held.keys().map(|blob| paths::blob(*blob));
        self.stages.keys().flat_map(of_stage).chain(blobs)
    }

    fn hold(
        &mut self,
        records: BTreeMap<StageDigest, Record>,
        dropped: &BTreeMap<StageDigest, DroppedOutputs>,
        plan: &Plan,
    ) {
        let mut read = vec![];
        for (stage, found) in records {
            let manifest = match found {
                Ok(Some(manifest)) => manifest,
                Ok(None) => continue,
                Err(error) => {
                    self.corrupt.push((stage, error));
                    continue;
                }
            };
            let key = self.stages.get(&stage).map_or_else(String::new, ToString::to_string);
            let gone = dropped.get(&stage);
            for (name, output) in &manifest.outputs {
                let label = format!("{key} {name}");
                let origin = Origin { label, size: Some(output.size), is_imported: false };
                let is_gone = gone.is_some_and(|gone| gone.outputs.get(name) == Some(output));
                let side = if is_gone { &mut self.dropped } else { &mut self.held };
                side.entry(output.digest).or_insert(origin);
            }
            read.extend(manifest.spec.inputs());
        }
        read.retain(|(_, digest)| !self.dropped.contains_key(digest));
        read.extend(plan.pending().values().flat_map(StageSpec::inputs));
        for (role, digest) in read {
            let label = format!("input {role}");
            let origin = Origin { label, size: None, is_imported: false };
            self.held.entry(digest).or_insert(origin);
        }
        let held = &self.held;
        self.dropped.retain(|digest, _| !held.contains_key(digest));
    }
}

/// An imported blob: its role, its name, and its length if known.
type Import = (String, ArtifactDigest, Option<u64>);

/// Blobs that a run's configuration names, and the files of its checkpoint; the text says why their listing cannot be
/// read, if so.
pub(crate) async fn imports(store: &Store, run: &Run) -> Result<(Vec<Import>, Option<String>)> {
    let material = run.config().material().into_iter();
    let mut named: Vec<Import> = material.map(|(label, digest)| (label, digest, None)).collect();
    let Base::Checkpoint(checkpoint) = run.base() else { return Ok((named, None)) };
    let parts = [
        ("config", checkpoint.config),
        ("tokenizer", checkpoint.tokenizer),
        ("listing", checkpoint.folder),
    ];
    named.extend(parts.map(|(part, digest)| (format!("checkpoint {part}"), digest, None)));
    let listing = match store.cas.get(checkpoint.folder).await {
        Ok(bytes) => FolderListing::from_bytes(&bytes),
        Err(JobsError::Lost { .. }) => None,
        Err(JobsError::Data(why)) => return Ok((named, Some(why.to_string()))),
        Err(error) => return Err(error),
    };
    let Some(listing) = listing else {
        let why = format!(
            "{}, the listing of the run's checkpoint, is missing or corrupt in {}; agrpo run FILE, \
             with the run's file, or agrpo import FOLDER stores it again",
            paths::blob(checkpoint.folder),
            store.url()
        );
        return Ok((named, Some(why)));
    };
    let files = listing.files.into_iter();
    named.extend(
        files.map(|(file, entry)| (format!("checkpoint {file}"), entry.digest, Some(entry.size))),
    );
    Ok((named, None))
}
