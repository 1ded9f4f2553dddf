//! A stage computed again and compared with its record, bit for bit.
//!
//! Reads inputs from the store itself and checks them anew. A damaged input or stored output is a data error; outputs
//! that differ are a report. Writes nothing, unless it is asked to recompute lost inputs first.

use std::collections::BTreeSet;
use std::sync::Arc;

use agrpo_spec::{
    Artifact, ArtifactDigest, Content, Environment, ExecuteFn, Manifest, OutputRecord, Outputs,
    Rewards, RunId, StageDigest, StageKey, StageKind, StageSpec, decode,
};
use futures::future::try_join_all;
use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use crate::maintenance::recompute::{self, Recompute};
use crate::planning::walk::own_stages;
use crate::stage;
use agrpo_store::Clock;
use agrpo_store::JobsError;
use agrpo_store::{DroppedOutputs, Store, records_of};

/// Records read at a time.
const READS: usize = 32;

/// One output of a stage, then and now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OutputComparison {
    /// The output's name; `NAME/FILE` in a folder.
    pub name: String,
    /// What the manifest names; none where it has no such output.
    pub recorded: Option<ArtifactDigest>,
    /// What came out now; none where nothing did.
    pub recomputed: Option<ArtifactDigest>,
    /// Whether the two are the same.
    pub identical: bool,
}

/// One metric of a stage, then and now.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MetricComparison {
    /// The metric's name.
    pub name: String,
    /// What the manifest says.
    pub recorded: Option<f64>,
    /// What came out now.
    pub recomputed: Option<f64>,
    /// Whether the two are the same to the bit.
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
    pub outputs: Vec<OutputComparison>,
    /// Every metric, by name.
    pub metrics: Vec<MetricComparison>,
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
) -> Result<ReplayReport, JobsError> {
    let store = store.fresh();
    let manifest = recorded(&store, stage).await?;
    let inputs = store.load_inputs(&manifest.spec).await?;
    let outputs = stage::run_blocking(&manifest.spec, inputs, execute).await?;
    let mut report = compare(&manifest, &outputs).await?;
    if !report.identical {
        report.row = differing_row(&store, &manifest, &outputs).await?;
    }
    if report.outputs.iter().all(|output| output.identical) {
        let store = &store;
        let stored = manifest.outputs.iter();
        try_join_all(stored.map(|(name, record)| verify(store, stage, name, record))).await?;
    }
    Ok(report)
}

/// The first run, by id, whose index names the stage.
pub async fn run_of(store: &Store, stage: StageDigest) -> Result<Option<RunId>, JobsError> {
    for run in store.runs().await? {
        if store.recorded_stages(run).await?.values().any(|recorded| *recorded == stage) {
            return Ok(Some(run));
        }
    }
    Ok(None)
}

/// The stages that would have to be computed again before a stage's inputs are all there, oldest first,
/// with their places where they are known. Looks for blobs, not at their bytes. Lost error where no
/// record says what made one.
pub async fn lacking(
    store: &Store,
    run: Option<RunId>,
    stage: StageDigest,
) -> Result<Vec<(Option<StageKey>, StageDigest)>, JobsError> {
    let manifest = recorded(store, stage).await?;
    recompute::lacking(store, run, &manifest.spec).await
}

/// The run whose retention deleted a blob, and a stage of that run which reads what went with it: with its inputs
/// made again ([`mend`]), the blob is there. `None` where the blob is there, or its absence is a loss.
pub async fn dropped(
    store: &Store,
    digest: ArtifactDigest,
) -> Result<Option<(RunId, StageDigest)>, JobsError> {
    if store.has_blob(digest).await? {
        return Ok(None);
    }
    for id in store.runs().await? {
        let noted = store.stages_with_dropped(id).await?.into_iter();
        let notes = noted.map(|stage| store.dropped(id, stage));
        let mut notes = stream::iter(notes).buffer_unordered(READS);
        while let Some(note) = notes.try_next().await? {
            let names =
                |note: &DroppedOutputs| note.outputs.values().any(|output| output.digest == digest);
            if let Some(note) = note.filter(names)
                && let Some(reader) = reader_of(store, id, &note).await?
            {
                return Ok(Some((id, reader)));
            }
        }
    }
    Ok(None)
}

/// The first stage of the run that reads what another one of its stages made.
async fn reader_of(
    store: &Store,
    run: RunId,
    note: &DroppedOutputs,
) -> Result<Option<StageDigest>, JobsError> {
    let made: BTreeSet<_> = note.outputs.values().map(|output| output.digest).collect();
    // Results are read in their own iteration and in the next one.
    let is_near = |key: &StageKey| key.iteration.abs_diff(note.key.iteration) <= 1;
    let own = own_stages(store, &store.run(run).await?).await?;
    for (_, stage) in own.into_iter().filter(|(key, _)| is_near(key)) {
        let inputs = recorded(store, stage).await?.spec.inputs();
        if inputs.iter().any(|(_, input)| made.contains(input)) {
            return Ok(Some(stage));
        }
    }
    Ok(None)
}

/// Makes a stage's lost inputs again and stores them; a run remembers what was done.
pub async fn mend(
    store: &Store,
    run: Option<RunId>,
    stage: StageDigest,
    execute: &ExecuteFn,
    environment: &Environment,
    clock: &Clock,
) -> Result<(), JobsError> {
    let manifest = recorded(store, stage).await?;
    let recompute = Recompute {
        store: store.clone(),
        run,
        execute: Arc::clone(execute),
        environment: environment.clone(),
        clock: Arc::clone(clock),
        turn: Arc::default(),
    };
    recompute.mend_inputs(&manifest.spec).await
}

async fn recorded(store: &Store, stage: StageDigest) -> Result<Manifest, JobsError> {
    store
        .manifest(stage)
        .await?
        .ok_or_else(|| JobsError::Data(format!("stages/{stage} is missing in {}", store.url())))
}

/// Replays every stage of the run that has a record, in the run's order, as its plan leads to them and not
/// as its index says; `tell` hears of each. Ends at the first data error, but goes on past differences.
pub async fn replay_run(
    store: &Store,
    run: RunId,
    execute: &ExecuteFn,
    mut tell: impl FnMut(StageKey, &ReplayReport),
) -> Result<Vec<(StageKey, ReplayReport)>, JobsError> {
    let run = store.run(run).await?;
    let mut reports = vec![];
    for (key, stage) in own_stages(store, &run).await? {
        let report = replay(store, stage, execute).await?;
        tell(key, &report);
        reports.push((key, report));
    }
    Ok(reports)
}

async fn compare(manifest: &Manifest, outputs: &Outputs) -> Result<ReplayReport, JobsError> {
    let now = records_of(outputs).await?;
    let names: BTreeSet<_> = manifest.outputs.keys().chain(now.keys()).collect();
    let compare_output = |name: &String| {
        let recorded = manifest.output(name);
        let recomputed = now.get(name).map(|record| record.digest);
        let identical = recorded == recomputed;
        OutputComparison { name: name.clone(), recorded, recomputed, identical }
    };
    let outputs_compared: Vec<_> = names.into_iter().map(compare_output).collect();
    let names: BTreeSet<_> = manifest.metrics.keys().chain(outputs.metrics.keys()).collect();
    let compare_metric = |name: &String| {
        let recorded = manifest.metrics.get(name).copied();
        let recomputed = outputs.metrics.get(name).copied();
        let identical = recorded.map(f64::to_bits) == recomputed.map(f64::to_bits);
        MetricComparison { name: name.clone(), recorded, recomputed, identical }
    };
    let metrics: Vec<_> = names.into_iter().map(compare_metric).collect();
    Ok(ReplayReport {
        stage: manifest.stage,
        kind: manifest.spec.kind(),
        identical: outputs_compared.iter().all(|output| output.identical)
            && metrics.iter().all(|metric| metric.identical),
        outputs: outputs_compared,
        metrics,
        row: None,
    })
}

/// The first row of a reward stage that a program graded differently. `None` for all other stages, and
/// where the recorded rewards are gone.
async fn differing_row(
    store: &Store,
    manifest: &Manifest,
    outputs: &Outputs,
) -> Result<Option<String>, JobsError> {
    let StageSpec::Reward(spec) = &manifest.spec else { return Ok(None) };
    let now = match outputs.artifacts.get("rewards") {
        Some(Artifact::Blob(Content::Memory(bytes))) => decode::<Rewards>(bytes),
        _ => None,
    };
    let recorded = match manifest.output("rewards") {
        Some(digest) if store.has_blob(digest).await? => {
            decode::<Rewards>(&store.get_blob(digest).await?)
        }
        _ => None,
    };
    let (Some(now), Some(recorded)) = (now, recorded) else { return Ok(None) };
    let mut rows = recorded.rows.iter().zip(&now.rows).enumerate();
    let Some((row, (then, now))) = rows.find(|(_, (then, now))| then.parts != now.parts) else {
        return Ok(None);
    };
    let mut parts = then.parts.iter().filter(|(name, value)| now.parts.get(*name) != Some(*value));
    let Some((part, value)) = parts.next() else { return Ok(None) };
    let other = now.parts.get(part).map_or_else(|| "nothing".to_owned(), f64::to_string);
    let grader = match spec.reward.command.as_slice() {
        [] => "this task".to_owned(),
        command => format!("the reward program `{}`", command.join(" ").escape_debug()),
    };
    Ok(Some(format!("{grader} gave row {row} {part} = {value} then and {other} now")))
}

/// Whether a stored output is what was just computed: its digest and its recorded length.
async fn verify(
    store: &Store,
    stage: StageDigest,
    name: &str,
    record: &OutputRecord,
) -> Result<(), JobsError> {
    let found = match store.verified_size(record.digest).await {
        Err(JobsError::Lost { .. }) if was_dropped(store, stage, name, record).await? => {
            return Ok(());
        }
        found => found?,
    };
    if found == record.size {
        return Ok(());
    }
    Err(JobsError::Data(format!(
        "stages/{stage} in {} is corrupt: it gives output `{name}` {} bytes, but cas/{} has {found}; \
         agrpo run FILE --repair, with the run's file, computes the stage again",
        store.url(),
        record.size,
        record.digest
    )))
}

/// Whether a stored output is gone because a run no longer keeps it.
async fn was_dropped(
    store: &Store,
    stage: StageDigest,
    name: &str,
    record: &OutputRecord,
) -> Result<bool, JobsError> {
    if store.has_blob(record.digest).await? {
        return Ok(false);
    }
    for run in store.runs().await? {
        let dropped = store.dropped(run, stage).await?;
        if dropped.is_some_and(|dropped| dropped.outputs.get(name) == Some(record)) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests;
