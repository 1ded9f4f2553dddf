//! What a run reaches: its stages, the blobs that it holds, and the outputs that it has dropped.
//!
//! Follows the run's index, and its plan walked from the start along the records, which finds everything even where the
//! index is lost. The plan of a run of other stage versions is not known here, so all that its index names counts.
//! Changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use agrpo_spec::{
    ArtifactDigest, Base, FolderListing, OutputRecord, Plan, Run, RunId, StageDigest, StageKey,
    StageKind, StageSpec,
};
use futures::future::try_join_all;
use futures::{StreamExt, TryStreamExt};

use agrpo_store::JobsError;
use agrpo_store::{DroppedOutputs, Store};

/// Records read at a time.
const READS: usize = 32;

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

/// What there is to know of a stage's record.
#[derive(Clone, Debug)]
struct Record {
    outputs: BTreeMap<String, OutputRecord>,
    inputs: Vec<(&'static str, ArtifactDigest)>,
}

/// Everything that a run reaches.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reachability {
    /// With their places; stages that are yet to be computed as well. An entry of the index in whose place the
    /// plan has another stage is left out; one of which that cannot be said counts.
    pub(crate) stages: BTreeMap<StageDigest, StageKey>,
    /// What the run needs or keeps.
    pub(crate) held: BTreeMap<ArtifactDigest, Origin>,
    /// What it no longer holds.
    pub(crate) dropped: BTreeMap<ArtifactDigest, Origin>,
    /// Stages in the index that have no record.
    pub(crate) without_record: Vec<StageDigest>,
    /// Stages whose record cannot be read, with the reason.
    pub(crate) corrupt: Vec<(StageDigest, JobsError)>,
    /// The listing of the run's checkpoint, if it could not be read, with the reason.
    pub(crate) unlisted: Option<(ArtifactDigest, String)>,
}

/// Follows a run to everything it reaches; `due` are outputs that count as let go though nothing says
/// so yet. Data error if the run's own record is missing or corrupt.
pub(crate) async fn reachable(
    store: &Store,
    id: RunId,
    due: &BTreeMap<StageDigest, DroppedOutputs>,
) -> Result<Reachability, JobsError> {
    let run = store.run(id).await?;
    let index = store.recorded_entries(id).await?;
    let mut reach = Reachability::default();
    let mut records = BTreeMap::new();
    let reads = index.iter().map(|&(_, stage)| read(store, stage));
    let mut reads = futures::stream::iter(reads).buffer_unordered(READS);
    while let Some((stage, found)) = reads.try_next().await? {
        reach.take(stage, found, &mut records);
    }
    drop(reads);
    let (own, waiting) = reach.walk(store, run.clone(), &mut records).await?;
    let is_foreign = is_of_other_versions(store, id).await?;
    let counts = |(key, stage): &(StageKey, StageDigest)| {
        is_foreign || own.get(key).is_none_or(|own| own == stage)
    };
    let index: Vec<_> = index.into_iter().filter(counts).collect();
    reach.stages.extend(index.iter().map(|&(key, stage)| (stage, key)));
    reach.stages.extend(own.iter().map(|(key, stage)| (*stage, *key)));
    let stages = &reach.stages;
    records.retain(|stage, _| stages.contains_key(stage));
    reach.corrupt.retain(|(stage, _)| stages.contains_key(stage));
    let is_read = |stage: &StageDigest| {
        records.contains_key(stage) || reach.corrupt.iter().any(|(damaged, _)| damaged == stage)
    };
    reach.without_record =
        index.into_iter().map(|(_, stage)| stage).filter(|stage| !is_read(stage)).collect();
    let mut dropped: BTreeMap<StageDigest, DroppedOutputs> = due.clone();
    let noted = store.stages_with_dropped(id).await?.into_iter();
    let notes = noted
        .map(|stage| async move { Ok::<_, JobsError>((stage, store.dropped(id, stage).await?)) });
    let mut notes = futures::stream::iter(notes).buffer_unordered(READS);
    let done = records.keys().chain(reach.corrupt.iter().map(|(stage, _)| stage));
    let done = done.chain(&reach.without_record).filter_map(|stage| reach.stages.get(stage));
    let newest = newest_update(&run, done);
    while let Some((stage, note)) = notes.try_next().await? {
        let (Some(note), Some(&key)) = (note, reach.stages.get(&stage)) else { continue };
        dropped.insert(stage, note.within(&run, key, newest));
    }
    reach.hold(&records, &dropped, &waiting);
    reach.hold_imports(store, &run).await?;
    Ok(reach)
}

/// The iteration of the newest complete update among these places; 0 where there is none.
pub(crate) fn newest_update<'a>(run: &Run, keys: impl Iterator<Item = &'a StageKey>) -> u32 {
    let last = run.config().estimator.inner_updates;
    let whole = keys.filter(|key| key.kind == StageKind::Update && key.inner == last);
    whole.map(|key| key.iteration).max().unwrap_or(0)
}

/// Whether other versions of stages compute the run, or may: its pin cannot be read.
pub(crate) async fn is_of_other_versions(store: &Store, id: RunId) -> Result<bool, JobsError> {
    match store.incompatible_versions(id).await {
        Ok(why) => Ok(why.is_some()),
        Err(JobsError::Data(_) | JobsError::Incompatible(_)) => Ok(true),
        Err(error) => Err(error),
    }
}

/// A stage's record: there, missing, or unreadable: damaged, or of another version.
type Found = Result<Option<Record>, JobsError>;

async fn read(store: &Store, stage: StageDigest) -> Result<(StageDigest, Found), JobsError> {
    match store.manifest(stage).await {
        Ok(manifest) => {
            let record = manifest.map(|manifest| Record {
                inputs: manifest.spec.inputs(),
                outputs: manifest.outputs,
            });
            Ok((stage, Ok(record)))
        }
        Err(error @ (JobsError::Data(_) | JobsError::Incompatible(_))) => Ok((stage, Err(error))),
        Err(error) => Err(error),
    }
}

impl Reachability {
    fn take(
        &mut self,
        stage: StageDigest,
        found: Found,
        records: &mut BTreeMap<StageDigest, Record>,
    ) {
        match found {
            Ok(Some(record)) => {
                records.insert(stage, record);
            }
            Ok(None) => {}
            Err(why) => self.corrupt.push((stage, why)),
        }
    }

    /// Walks the plan as far as records lead; answers with its stages and with those of them that wait there.
    async fn walk(
        &mut self,
        store: &Store,
        run: Run,
        records: &mut BTreeMap<StageDigest, Record>,
    ) -> Result<(BTreeMap<StageKey, StageDigest>, Vec<StageSpec>), JobsError> {
        let mut plan = Plan::new(run);
        let (mut own, mut asked) = (BTreeMap::new(), BTreeSet::new());
        loop {
            let new: Vec<(StageKey, StageDigest)> = plan
                .pending()
                .iter()
                .map(|(key, spec)| (*key, spec.digest()))
                .filter(|(_, stage)| asked.insert(*stage))
                .collect();
            if new.is_empty() {
                return Ok((own, plan.pending().values().cloned().collect()));
            }
            let unread = new.iter().map(|(_, stage)| *stage).filter(|stage| {
                let is_damaged = self.corrupt.iter().any(|(damaged, _)| damaged == stage);
                !is_damaged && !records.contains_key(stage)
            });
            let reads: Vec<_> = unread.map(|stage| read(store, stage)).collect();
            for (stage, found) in try_join_all(reads).await? {
                self.take(stage, found, records);
            }
            for (key, stage) in new {
                own.insert(key, stage);
                if let Some(record) = records.get(&stage) {
                    let output = |name: &str| record.outputs.get(name).map(|o| o.digest);
                    // A record that lacks an output is found by its readers.
                    plan.finished(key, output).ok();
                }
            }
        }
    }

    fn hold(
        &mut self,
        records: &BTreeMap<StageDigest, Record>,
        dropped: &BTreeMap<StageDigest, DroppedOutputs>,
        waiting: &[StageSpec],
    ) {
        for (stage, record) in records {
            let place = self.stages.get(stage).map_or_else(String::new, ToString::to_string);
            let gone = dropped.get(stage);
            for (name, output) in &record.outputs {
                let label = format!("{place} {name}");
                let origin = Origin { label, size: Some(output.size), is_imported: false };
                let is_gone = gone.is_some_and(|gone| gone.outputs.get(name) == Some(output));
                let side = if is_gone { &mut self.dropped } else { &mut self.held };
                side.entry(output.digest).or_insert(origin);
            }
        }
        let inputs = records.values().flat_map(|record| record.inputs.iter().copied());
        let inputs = inputs.filter(|(_, digest)| !self.dropped.contains_key(digest));
        let waiting = waiting.iter().flat_map(StageSpec::inputs);
        for (role, digest) in inputs.chain(waiting).collect::<Vec<_>>() {
            let label = || format!("input {role}");
            let origin = || Origin { label: label(), size: None, is_imported: false };
            self.held.entry(digest).or_insert_with(origin);
        }
        let held = &self.held;
        self.dropped.retain(|digest, _| !held.contains_key(digest));
    }

    /// What the run names itself, and the files of its checkpoint.
    async fn hold_imports(&mut self, store: &Store, run: &Run) -> Result<(), JobsError> {
        let (named, unlisted) = imports(store, run).await?;
        self.unlisted = unlisted;
        for (label, digest, size) in named {
            self.dropped.remove(&digest);
            let origin = Origin { label, size, is_imported: true };
            let held = self.held.entry(digest).or_insert(origin);
            // What no record lists among its outputs.
            held.is_imported |= held.size.is_none();
        }
        Ok(())
    }
}

/// A blob that came from outside: what for, its name, and its length where that is known.
type Import = (String, ArtifactDigest, Option<u64>);

/// What a run names itself, and the files of its checkpoint unless their listing cannot be read.
pub(crate) async fn imports(
    store: &Store,
    run: &Run,
) -> Result<(Vec<Import>, Option<(ArtifactDigest, String)>), JobsError> {
    let material = run.config().material().into_iter();
    let mut named: Vec<Import> = material.map(|(label, digest)| (label, digest, None)).collect();
    let Base::Checkpoint(checkpoint) = run.base() else { return Ok((named, None)) };
    for (file, digest) in [("config", checkpoint.config), ("tokenizer", checkpoint.tokenizer)] {
        named.push((format!("checkpoint {file}"), digest, None));
    }
    named.push(("checkpoint listing".to_owned(), checkpoint.folder, None));
    let folder = checkpoint.folder;
    let lost = || {
        format!(
            "cas/{folder}, the listing of the run's checkpoint, is missing or corrupt in {}; agrpo run FILE, \
             with the run's file, or agrpo import FOLDER stores it again",
            store.url()
        )
    };
    match store.get_blob(folder).await {
        Ok(bytes) => match FolderListing::from_bytes(&bytes) {
            Some(listing) => {
                let files = listing.files.into_iter();
                named.extend(files.map(|(file, entry)| {
                    (format!("checkpoint {file}"), entry.digest, Some(entry.size))
                }));
                Ok((named, None))
            }
            None => Ok((named, Some((folder, lost())))),
        },
        Err(JobsError::Lost { .. }) => Ok((named, Some((folder, lost())))),
        Err(JobsError::Data(why)) => Ok((named, Some((folder, why)))),
        Err(error) => Err(error),
    }
}
