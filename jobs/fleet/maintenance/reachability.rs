//! What a run reaches: its stages, the blobs that it holds, and the outputs that its retention deleted.
//!
//! Follows the run's index, and its plan walked from the start along the records, which finds everything even where the
//! index is lost. The plan of a run of other stage versions is not known here, so all that its index names counts.
//! Changes nothing.

use std::{collections::BTreeMap, sync::Arc};

use agrpo_spec::{
    ArtifactDigest, Base, FolderListing, Manifest, OutputRecord, Plan, Run, RunId, StageDigest,
    StageKey, StageSpec,
};
use agrpo_store::{DroppedOutputs, JobsError, Store};
use serde::Serialize;

use crate::Result;
use crate::planning::steps::{Steps, each, readable};

/// So many objects of so many bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// How many.
    pub objects: u64,
    /// Their lengths together.
    pub bytes: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, bytes: u64) {
        self.objects += 1;
        self.bytes += bytes;
    }
}

/// Where a blob comes from, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// `update-000003 policy/model.safetensors`, or the part that the blob plays as an input.
    pub(crate) label: String,
    /// Its length, where a record says it.
    pub(crate) size: Option<u64>,
    /// Whether it was imported: no stage makes it.
    pub(crate) is_imported: bool,
}

#[derive(Clone, Debug)]
struct Record {
    outputs: BTreeMap<String, OutputRecord>,
    inputs: Vec<(&'static str, ArtifactDigest)>,
}

/// A stage's record: there, missing, or unreadable: damaged, or of another version.
type Found = Result<Option<Arc<Record>>>;

#[derive(Clone, Debug, Default)]
pub(crate) struct Reachability {
    /// With their places; stages that are yet to be computed as well. An entry of the index in whose place the
    /// plan has another stage is left out; one of which that cannot be said counts.
    pub(crate) stages: BTreeMap<StageDigest, StageKey>,
    /// What the run needs or keeps.
    pub(crate) held: BTreeMap<ArtifactDigest, Origin>,
    /// What its retention deleted, or may delete.
    pub(crate) dropped: BTreeMap<ArtifactDigest, Origin>,
    /// Stages in the index that have no record.
    pub(crate) without_record: Vec<StageDigest>,
    /// Stages whose record cannot be read, with the reason.
    pub(crate) corrupt: Vec<(StageDigest, JobsError)>,
    /// Why the listing of the run's checkpoint cannot be read, if so.
    pub(crate) unlisted: Option<String>,
}

/// Follows a run to everything it reaches; `due` are outputs that count as deleted by retention before a note
/// of them is written. Data error if the run's own record is missing or corrupt.
pub(crate) async fn reachable(
    store: &Store,
    id: RunId,
    due: &BTreeMap<StageDigest, DroppedOutputs>,
) -> Result<Reachability> {
    let run = store.records.run(id).await?;
    let mut index = store.records.recorded_entries(id).await?;
    let read = |stage| async move {
        let record = |found: Manifest| {
            Arc::new(Record { inputs: found.spec.inputs(), outputs: found.outputs })
        };
        Ok(readable(store.records.manifest(stage).await)?.map(|found| found.map(record)))
    };
    let mut steps = Steps::ahead(index.iter().map(|(_, stage)| *stage), read).await?;
    let mut plan = Plan::new(run.clone());
    let mut own: BTreeMap<StageKey, StageDigest> = BTreeMap::new();
    while let Some(step) = steps.next(&plan, |_| true, read).await? {
        for ((key, stage), record) in step {
            if let Ok(Some(record)) = &record {
                // A record that lacks an output is found by its readers.
                plan.finished(key, |name| record.outputs.get(name).map(|o| o.digest)).ok();
            }
            own.insert(key, stage);
            steps.ahead.insert(stage, record);
        }
    }
    let mut records: BTreeMap<StageDigest, Found> = steps.ahead;
    if !is_of_other_versions(store, id).await? {
        index.retain(|(key, stage)| own.get(key).is_none_or(|own| own == stage));
    }
    let is_absent = |stage: &StageDigest| !matches!(records.get(stage), Some(Ok(Some(_)) | Err(_)));
    let recorded = own.iter().filter(|(_, stage)| !is_absent(stage)).map(|(key, _)| key);
    let done = index.iter().map(|(key, _)| key).chain(recorded);
    let newest = Plan::iterations_done(&run, done).last().copied().unwrap_or(0);
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
        // What no record lists among its outputs.
        held.is_imported |= held.size.is_none();
    }
    Ok(reach)
}

/// Whether other versions of stages compute the run, or may: its pin cannot be read.
pub(crate) async fn is_of_other_versions(store: &Store, id: RunId) -> Result<bool> {
    Ok(!matches!(readable(store.records.incompatible_versions(id).await)?, Ok(None)))
}

impl Reachability {
    /// The names of the objects that it keeps in the store: records and specs of stages, and blobs.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        let of_stage = |stage| [format!("stages/{stage}"), format!("specs/{stage}")];
        let blobs = self.held.keys().map(|blob| format!("cas/{blob}"));
        self.stages.keys().flat_map(of_stage).chain(blobs)
    }

    fn hold(
        &mut self,
        records: BTreeMap<StageDigest, Found>,
        dropped: &BTreeMap<StageDigest, DroppedOutputs>,
        plan: &Plan,
    ) {
        let mut read = vec![];
        for (stage, found) in records {
            let record = match found {
                Ok(Some(record)) => record,
                Ok(None) => continue,
                Err(error) => {
                    self.corrupt.push((stage, error));
                    continue;
                }
            };
            let place = self.stages.get(&stage).map_or_else(String::new, ToString::to_string);
            let gone = dropped.get(&stage);
            for (name, output) in &record.outputs {
                let label = format!("{place} {name}");
                let origin = Origin { label, size: Some(output.size), is_imported: false };
                let is_gone = gone.is_some_and(|gone| gone.outputs.get(name) == Some(output));
                let side = if is_gone { &mut self.dropped } else { &mut self.held };
                side.entry(output.digest).or_insert(origin);
            }
            read.extend(record.inputs.iter().copied());
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

/// A blob that came from outside: what for, its name, and its length where that is known.
type Import = (String, ArtifactDigest, Option<u64>);

/// What a run names itself, and the files of its checkpoint unless their listing cannot be read.
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
        Err(JobsError::Data(why)) => return Ok((named, Some(why))),
        Err(error) => return Err(error),
    };
    let Some(listing) = listing else {
        let why = format!(
            "cas/{}, the listing of the run's checkpoint, is missing or corrupt in {}; agrpo run FILE, \
             with the run's file, or agrpo import FOLDER stores it again",
            checkpoint.folder,
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
