//! A stage computed again and compared with its record, bit for bit.
//!
//! Reads inputs from the store, not from a cache, and checks them anew. A damaged input or stored output is a data
//! error; outputs that differ are reported. Writes nothing, unless asked to recompute lost inputs first.

use std::collections::{BTreeMap, BTreeSet};

use agrpo_spec::{
    Artifact, ArtifactDigest, Content, ExecuteFn, Manifest, OutputRecord, Outputs, Rewards, RunId,
    StageDigest, StageKey, StageKind, StageSpec, decode,
};
use agrpo_store::{DroppedOutputs, JobsError, Store, paths, records_of};
use serde::Serialize;

use crate::planning::{own_stages, steps::each};
use crate::{Result, maintenance::producers::Producers, stage};

/// An output or a metric of a stage, recorded and recomputed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Comparison<T> {
    /// Its name; `NAME/FILE` of a file in a folder.
    pub name: String,
    /// In the manifest; `None` if it has no such output or metric.
    pub recorded: Option<T>,
    /// In the new result; `None` if it has no such output or metric.
    pub recomputed: Option<T>,
    /// Whether both are the same to the bit.
    pub identical: bool,
}

/// What a replay found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReplayReport {
    /// The stage.
    pub stage: StageDigest,
    /// Its kind.
    pub kind: StageKind,
    /// Every output, by name.
    pub outputs: Vec<Comparison<ArtifactDigest>>,
    /// Every metric, by name.
    pub metrics: Vec<Comparison<f64>>,
    /// Whether everything is the same.
    pub identical: bool,
    /// Of rewards that differ, the first row and who graded it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row: Option<String>,
}

/// Computes a stage again and compares. Data error naming what is missing or corrupt: the manifest, an
/// input, or a stored output whose digest came out right.
pub async fn replay(
    store: &Store,
    stage: StageDigest,
    execute: &ExecuteFn,
) -> Result<ReplayReport> {
    let store = store.fresh();
    let manifest = recorded(&store, stage).await?;
    let inputs = store.cas.load_inputs(&manifest.spec).await?;
    let outputs = stage::run_blocking(&manifest.spec, inputs, execute).await?;
    let mut report = compare(&manifest, &outputs).await?;
    if !report.identical
        && let Some(rewards) = manifest.output("rewards")
        && store.cas.has(rewards).await?
    {
        report.row = differing_row(&manifest.spec, &store.cas.get(rewards).await?, &outputs);
    }
    if report.outputs.iter().all(|output| output.identical) {
        each(&manifest.outputs, |(name, record)| check(&store, stage, name, record)).await?;
    }
    Ok(report)
}

/// The first run, by id, whose index names the stage.
pub async fn run_of(store: &Store, stage: StageDigest) -> Result<Option<RunId>> {
    for run in store.records.runs().await? {
        if store.records.recorded_stages(run).await?.values().any(|recorded| *recorded == stage) {
            return Ok(Some(run));
        }
    }
    Ok(None)
}

/// The stages that have to be computed again to restore a stage's inputs, oldest first, with their keys if known.
/// Checks that blobs exist, not their bytes. Lost error if no record names the producer of one.
pub async fn lacking(
    store: &Store,
    run: Option<RunId>,
    stage: StageDigest,
) -> Result<Vec<(Option<StageKey>, StageDigest)>> {
    let spec = recorded(store, stage).await?.spec;
    let mut producers = Producers::new(store, run, &spec).await?;
    let (mut found, mut waiting): (Vec<(Option<StageKey>, StageDigest)>, _) = (vec![], vec![spec]);
    while let Some(spec) = waiting.pop() {
        for digest in store.cas.absent(&spec).await? {
            let Some(producer) = producers.producer(digest, &[]).await? else {
                return Err(store.cas.missing(digest));
            };
            if found.iter().all(|(_, stage)| *stage != producer.stage) {
                found.push((producer.key, producer.stage));
                waiting.push(producer.spec);
            }
        }
    }
    found.reverse();
    found.sort_by_key(|(key, _)| *key);
    Ok(found)
}

/// The run whose retention deleted a blob, and a stage of that run that reads what was deleted with it: restoring the
/// stage's inputs (`Local::mend`) restores the blob. `None` if the blob exists, or is lost.
pub async fn dropped(store: &Store, blob: ArtifactDigest) -> Result<Option<(RunId, StageDigest)>> {
    if store.cas.has(blob).await? {
        return Ok(None);
    }
    let names = |note: &DroppedOutputs| note.outputs.values().any(|output| output.digest == blob);
    for id in store.records.runs().await? {
        let noted = store.records.stages_with_dropped(id).await?;
        for note in
            each(noted, |stage| store.records.dropped(id, stage)).await?.into_iter().flatten()
        {
            if names(&note)
                && let Some(reader) = reader(store, id, &note).await?
            {
                return Ok(Some((id, reader)));
            }
        }
    }
    Ok(None)
}

/// The first stage of the run that reads what another one of its stages made.
async fn reader(store: &Store, run: RunId, note: &DroppedOutputs) -> Result<Option<StageDigest>> {
    let made: BTreeSet<_> = note.outputs.values().map(|output| output.digest).collect();
    // Only stages of the same iteration and the next one read a result.
    let is_near = |key: &StageKey| key.iteration.abs_diff(note.key.iteration) <= 1;
    let own = own_stages(store, &store.records.run(run).await?).await?;
    for (_, stage) in own.into_iter().filter(|(key, _)| is_near(key)) {
        let inputs = recorded(store, stage).await?.spec.inputs();
        if inputs.iter().any(|(_, input)| made.contains(input)) {
            return Ok(Some(stage));
        }
    }
    Ok(None)
}

/// The record of a stage; data error if it is missing.
pub async fn recorded(store: &Store, stage: StageDigest) -> Result<Manifest> {
    let found = store.records.manifest(stage).await?;
    found.ok_or_else(|| store.records.missing(&paths::manifest(stage)))
}

/// Replays every stage of the run that has a record, in the order of its plan; its index does not count. Ends at the
/// first data error, but goes on after differences.
pub async fn replay_run(
    store: &Store,
    run: RunId,
    execute: &ExecuteFn,
) -> Result<Vec<(StageKey, ReplayReport)>> {
    let mut reports = vec![];
    for (key, stage) in own_stages(store, &store.records.run(run).await?).await? {
        reports.push((key, replay(store, stage, execute).await?));
    }
    Ok(reports)
}

async fn compare(manifest: &Manifest, outputs: &Outputs) -> Result<ReplayReport> {
    let digests = |records: &BTreeMap<String, OutputRecord>| -> BTreeMap<String, ArtifactDigest> {
        records.iter().map(|(name, record)| (name.clone(), record.digest)).collect()
    };
    let (then, now) = (digests(&manifest.outputs), digests(&records_of(outputs).await?));
    let metrics = compared(&manifest.metrics, &outputs.metrics, f64::to_bits);
    let outputs = compared(&then, &now, |digest| digest);
    Ok(ReplayReport {
        stage: manifest.stage,
        kind: manifest.spec.kind(),
        identical: outputs.iter().all(|output| output.identical)
            && metrics.iter().all(|metric| metric.identical),
        outputs,
        metrics,
        row: None,
    })
}

/// Compares values by name, each by its bits.
fn compared<T: Copy, B: PartialEq>(
    then: &BTreeMap<String, T>,
    now: &BTreeMap<String, T>,
    bits: impl Fn(T) -> B,
) -> Vec<Comparison<T>> {
    let names: BTreeSet<_> = then.keys().chain(now.keys()).collect();
    let compare = |name: &String| {
        let (recorded, recomputed) = (then.get(name).copied(), now.get(name).copied());
        let identical = recorded.map(&bits) == recomputed.map(&bits);
        Comparison { name: name.clone(), recorded, recomputed, identical }
    };
    names.into_iter().map(compare).collect()
}

/// The first row of a reward stage that was graded differently.
fn differing_row(spec: &StageSpec, recorded: &[u8], outputs: &Outputs) -> Option<String> {
    let StageSpec::Reward(spec) = spec else { return None };
    let Some(Artifact::Blob(Content::Memory(now))) = outputs.artifacts.get("rewards") else {
        return None;
    };
    let (then, now) = (decode::<Rewards>(recorded)?, decode::<Rewards>(now)?);
    let mut rows = then.rows.iter().zip(&now.rows).enumerate();
    let (row, (then, now)) = rows.find(|(_, (then, now))| then.parts != now.parts)?;
    let mut parts = then.parts.iter();
    let (part, value) = parts.find(|(name, value)| now.parts.get(*name) != Some(*value))?;
    let other = now.parts.get(part).map_or_else(|| "nothing".to_owned(), f64::to_string);
    let grader = match spec.reward.command.as_slice() {
        [] => "this task".to_owned(),
        command => format!("the reward program `{}`", command.join(" ").escape_debug()),
    };
    Some(format!("{grader} gave row {row} {part} = {value} then and {other} now"))
}

/// Checks the digest and length of a stored output, unless a run's retention deleted it.
async fn check(store: &Store, stage: StageDigest, name: &str, record: &OutputRecord) -> Result<()> {
    let found = store.cas.verified_size(record.digest).await;
    if matches!(found, Err(JobsError::Lost { .. })) && !store.cas.has(record.digest).await? {
        for run in store.records.runs().await? {
            let deleted = store.records.dropped(run, stage).await?;
            if deleted.is_some_and(|deleted| deleted.outputs.get(name) == Some(record)) {
                return Ok(());
            }
        }
    }
    let found = found?;
    if found == record.size {
        return Ok(());
    }
    Err(JobsError::data(format!(
        "{} in {} is corrupt: it gives output `{name}` {} bytes, but {} has {found}; \
         agrpo run FILE --repair, with the run's file, computes the stage again",
        paths::manifest(stage),
        store.url(),
        record.size,
        paths::blob(record.digest)
    )))
}

#[cfg(test)]
mod tests;
