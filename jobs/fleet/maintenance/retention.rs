//! Deletes outputs of a run's own stages while the run goes on, as its `[retention]` says.
//!
//! A note in the run's records comes first, then the blobs that no run of the store holds are deleted: a crash in
//! between leaves blobs for a gc. It reads the index of every run that was not complete the last time, so it runs no
//! more often than a small share of the time allows, and once more when the run is done. A run that begins to need a
//! blob at that moment finds it missing and recomputes it; no result can be wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use agrpo_spec::{ArtifactDigest, Plan, Retention, Run, RunId, StageDigest, StageKey};
use agrpo_store::{DroppedOutputs, Store, paths, readable};
use tokio::time::Instant;

use crate::Result;
use crate::maintenance::reachability::{self, Totals};
use crate::planning::steps::{Stages, each};

/// The shortest pause between two passes, in seconds and as a multiple of the last pass.
const PAUSE: Duration = Duration::from_secs(10);
const SHARE: u32 = 20;

/// Called after each stage of a run: after an update, deletes what is no longer retained. Skips a pass while another
/// one runs in this process or has ended a moment ago.
pub(crate) async fn after(store: &Store, run: RunId, key: StageKey) {
    let is_time = || store.records.references.try_lock().is_ok_and(|known| known.is_time());
    if key.is_update() && is_time() {
        at_end(store, run).await;
    }
}

/// Deletes what is no longer retained. Logs an error, and leaves the rest to the next pass: the run goes on.
pub(crate) async fn at_end(store: &Store, run: RunId) {
    let began = Instant::now();
    let applied = apply(store, run).await;
    store.records.references.lock().await.rest(PAUSE.max(began.elapsed() * SHARE));
    match applied {
        Ok(Totals { objects: 0, .. }) => {}
        Ok(Totals { objects: blobs, bytes }) => {
            tracing::info!(run = run.short(), blobs, bytes, "deleted what retention does not keep");
        }
        Err(error) => {
            tracing::warn!(run = run.short(), %error, "could not delete what retention does not keep");
        }
    }
}

/// Deletes outputs that a run's retention does not keep, judged by its newest update.
pub(crate) async fn apply(store: &Store, id: RunId) -> Result<Totals> {
    let retention = store.records.retention(id).await?;
    if retention.keeps_all() {
        return Ok(Totals::default());
    }
    let run = store.records.run(id).await?;
    let due = due(store, &run, retention).await?;
    for (stage, dropped) in &due {
        store.records.note_dropped(id, *stage, dropped).await?;
    }
    let outputs = due.values().flat_map(|dropped| dropped.outputs.values());
    let mut blobs: BTreeMap<ArtifactDigest, u64> =
        outputs.map(|record| (record.digest, record.size)).collect();
    if !blobs.is_empty() {
        spare_held(store, &mut blobs).await?;
    }
    let delete = |blob| async move { store.objects.delete(&paths::blob(blob)).await };
    each(blobs.keys().copied(), delete).await?;
    Ok(Totals { objects: blobs.len() as u64, bytes: blobs.values().sum() })
}

/// Outputs that a run's retention deletes now and that are not noted yet.
pub(crate) async fn due(
    store: &Store,
    run: &Run,
    retention: Retention,
) -> Result<BTreeMap<StageDigest, DroppedOutputs>> {
    let index = store.records.recorded_stages(run.id()).await?;
    let noted = store.records.stages_with_dropped(run.id()).await?;
    let mut newest = None;
    for iteration in Plan::iterations_done(run, index.keys()).into_iter().rev() {
        let key = Plan::last_update(run, iteration);
        if store.records.recorded_policy(run.id(), key).await?.is_some() {
            newest = Some(iteration);
            break;
        }
    }
    let Some(newest) = newest else { return Ok(BTreeMap::new()) };
    let going = index.iter().map(|(key, stage)| (*key, *stage)).filter(|(key, stage)| {
        let names = retention.deletes(run, *key, newest);
        !names.is_empty() && !noted.contains(stage) && !is_needed(run, &index, *key)
    });
    let reads = each(going, |(key, stage)| async move {
        let Some(manifest) = store.records.manifest(stage).await? else { return Ok(None) };
        if Plan::place(run, &manifest.spec) != Some(key) {
            store.records.log_incompatible(run.id(), key, stage);
            return Ok(None);
        }
        let names = retention.deletes(run, key, newest);
        let is_named =
            |output: &str| output.split('/').next().is_some_and(|first| names.contains(&first));
        let outputs = manifest.outputs.into_iter().filter(|(output, _)| is_named(output));
        Ok(Some((stage, DroppedOutputs { key, outputs: outputs.collect() })))
    });
    Ok(reads.await?.into_iter().flatten().collect())
}

/// Whether an evaluation still needs the policy of a stage.
fn is_needed(run: &Run, index: &Stages, key: StageKey) -> bool {
    key == Plan::last_update(run, key.iteration)
        && Plan::evaluations(run, key.iteration).iter().any(|stage| !index.contains_key(stage))
}

/// Removes from `blobs` what a run of the store holds.
async fn spare_held(store: &Store, blobs: &mut BTreeMap<ArtifactDigest, u64>) -> Result<()> {
    let mut references = store.records.references.lock().await;
    let runs = store.records.runs().await?;
    references.runs.retain(|run, _| runs.contains(run));
    for &id in &runs {
        let known = references.runs.entry(id).or_default();
        if known.is_complete {
            continue;
        }
        let run = store.records.run(id).await?;
        if known.imports.is_none() {
            let (named, _) = reachability::imports(store, &run).await?;
            known.imports = Some(named.into_iter().map(|(_, digest, _)| digest).collect());
        }
        let index = store.records.recorded_entries(id).await?;
        let new = index.iter().copied().filter(|(_, stage)| !known.stages.contains_key(stage));
        let read = |(key, stage)| async move { Ok((key, store.records.manifest(stage).await?)) };
        for (key, manifest) in each(new, read).await? {
            if let Some(manifest) = manifest {
                known.stages.insert(manifest.stage, (key, manifest.outputs));
            }
        }
        let places: BTreeSet<StageKey> = index.iter().map(|(key, _)| *key).collect();
        let is_known = index.iter().all(|(_, stage)| known.stages.contains_key(stage));
        let is_whole = is_known && places.len() as u64 == Plan::total_stages(&run);
        // A run of other versions may still be computed anew.
        if is_whole && !reachability::is_of_other_versions(store, id).await? {
            known.is_complete = true;
        }
    }
    // A note names the outputs that its stage no longer holds; the others stay held.
    let mut notes: BTreeMap<(RunId, StageDigest), DroppedOutputs> = BTreeMap::new();
    for (id, stage) in references.naming(blobs) {
        let Some(note) = store.records.dropped(id, stage).await? else { continue };
        let Some(known) = references.runs.get(&id).map(|known| &known.stages) else { continue };
        let Some(&(key, _)) = known.get(&stage) else { continue };
        // Outputs of a run that cannot be read count as held.
        if let Ok(run) = readable(store.records.run(id).await)? {
            let places = known.values().map(|(key, _)| key);
            let newest = Plan::newest_iteration(&run, places);
            notes.insert((id, stage), note.within(&run, key, newest));
        }
    }
    references.spare_held(blobs, |run, stage, name| {
        notes.get(&(run, stage)).is_some_and(|note| note.outputs.contains_key(name))
    });
    Ok(())
}

#[cfg(test)]
mod tests;
