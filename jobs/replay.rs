//! A stage computed again and compared with its record, bit for bit.
//!
//! Inputs are read from the store and checked anew, whatever is in memory. A damaged input or stored
//! output is a data error; outputs that come out differently are a report. Writes nothing.

use std::collections::BTreeSet;

use agrpo_spec::{
    ArtifactDigest, ExecuteFn, Manifest, OutputRecord, Outputs, RunId, StageDigest, StageKey,
    StageKind,
};
use futures::future::try_join_all;
use serde::Serialize;

use crate::error::JobsError;
use crate::stage;
use crate::store::{Store, records};

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
}

/// Computes a stage again and compares. Data error naming what is missing or corrupt: the manifest, an
/// input, or a stored output whose digest came out right.
pub async fn replay(
    store: &Store,
    stage: StageDigest,
    execute: &ExecuteFn,
) -> Result<ReplayReport, JobsError> {
    let store = store.fresh();
    let Some(manifest) = store.manifest(stage).await? else {
        return Err(JobsError::Data(format!("stages/{stage} is missing in {}", store.url())));
    };
    let inputs = store.load_inputs(&manifest.spec).await?;
    let outputs = stage::run_blocking(&manifest.spec, inputs, execute).await?;
    let report = compare(&manifest, &outputs).await?;
    if report.outputs.iter().all(|output| output.identical) {
        let store = &store;
        let stored = manifest.outputs.iter();
        try_join_all(stored.map(|(name, record)| verify(store, stage, name, record))).await?;
    }
    Ok(report)
}

/// Replays every stage in the run's index, in the run's order; `tell` hears of each. Ends at the
/// first data error, but goes on past differences.
pub async fn replay_run(
    store: &Store,
    run: RunId,
    execute: &ExecuteFn,
    mut tell: impl FnMut(StageKey, &ReplayReport),
) -> Result<Vec<(StageKey, ReplayReport)>, JobsError> {
    store.run(run).await?;
    let mut reports = vec![];
    for (key, stage) in store.recorded_stages(run).await? {
        let report = replay(store, stage, execute).await?;
        tell(key, &report);
        reports.push((key, report));
    }
    Ok(reports)
}

async fn compare(manifest: &Manifest, outputs: &Outputs) -> Result<ReplayReport, JobsError> {
    let now = records(outputs).await?;
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
    })
}

/// Whether a stored output is what was just computed: its digest and its recorded length.
async fn verify(
    store: &Store,
    stage: StageDigest,
    name: &str,
    record: &OutputRecord,
) -> Result<(), JobsError> {
    let found = store.verified_size(record.digest).await?;
    if found == record.size {
        return Ok(());
    }
    Err(JobsError::Data(format!(
        "stages/{stage} in {} is corrupt: it gives output `{name}` {} bytes, but cas/{} has {found}; \
         delete it and start the run again: the stage is then computed anew",
        store.url(),
        record.size,
        record.digest
    )))
}

#[cfg(test)]
mod tests;
