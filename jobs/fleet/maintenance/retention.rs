//! Deletes outputs of a run's own stages while it goes on, as its `[retention]` says.
//!
//! The run first notes what it no longer holds; then the bytes go that no run of the store holds: a death in between
//! leaves only what a gc sweeps. To know that, it reads the index of every run that was not complete at the last look, so
//! it looks no more often than costs it a small share of its time, and once more when it is done. A run that begins to
//! need a blob in that very moment finds it missing and recomputes it; no result can be wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use agrpo_spec::{ArtifactDigest, Plan, Retention, Run, RunId, StageDigest, StageKey, StageKind};
use agrpo_store::{DroppedOutputs, Store};
use tokio::time::Instant;

use crate::Result;
use crate::maintenance::reachability::{self, Tally};
use crate::planning::steps::{each, readable};

/// From one look to the next, at least, and in lengths of a look.
const PAUSE: Duration = Duration::from_secs(10);
const SHARE: u32 = 20;

type Index = BTreeMap<StageKey, StageDigest>;

/// After a stage of a run: if it was an update, deletes what is no longer kept. Leaves it to a later one where
/// this process did so a moment ago, or is at it.
pub(crate) async fn after(store: &Store, run: RunId, key: StageKey) {
    let is_time = || store.records.references.try_lock().is_ok_and(|known| known.is_time());
    if key.kind == StageKind::Update && is_time() {
        at_end(store, run).await;
    }
}

/// Deletes what is no longer kept. An error is logged and left to the next time: a run does not end because
/// it keeps too much.
pub(crate) async fn at_end(store: &Store, run: RunId) {
    let began = Instant::now();
    let applied = apply(store, run).await;
    store.records.references.lock().await.rest(PAUSE.max(began.elapsed() * SHARE));
    match applied {
        Ok(Tally { objects: 0, .. }) => {}
        Ok(Tally { objects: blobs, bytes }) => {
            tracing::info!(run = run.short(), blobs, bytes, "deleted what retention does not keep");
        }
        Err(error) => {
            tracing::warn!(run = run.short(), %error, "could not delete what retention does not keep");
        }
    }
}

/// Deletes what a run's retention does not keep at the point where the run stands.
pub(crate) async fn apply(store: &Store, id: RunId) -> Result<Tally> {
    let retention = store.records.retention(id).await?;
    if retention.keeps_all() {
        return Ok(Tally::default());
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
    each(blobs.keys().copied(), |digest| store.cas.delete(digest)).await?;
    Ok(Tally { objects: blobs.len() as u64, bytes: blobs.values().sum() })
}

/// What a run's retention deletes now and has not noted yet.
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

/// Whether an evaluation still waits for the policy that a stage left.
fn is_needed(run: &Run, index: &Index, key: StageKey) -> bool {
    key == Plan::last_update(run, key.iteration)
        && run.is_evaluated(key.iteration)
        && !index.contains_key(&StageKey::evaluation(key.iteration))
}

/// Takes out of `blobs` whatever a run of the store holds.
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
        // One that other versions completed may yet be begun anew.
        if is_whole && !reachability::is_of_other_versions(store, id).await? {
            known.is_complete = true;
        }
    }
    // Of a stage whose outputs retention deleted, rewards and metrics stay.
    let mut notes: BTreeMap<(RunId, StageDigest), DroppedOutputs> = BTreeMap::new();
    for (id, stage) in references.naming(blobs) {
        let Some(note) = store.records.dropped(id, stage).await? else { continue };
        let Some(known) = references.runs.get(&id).map(|known| &known.stages) else { continue };
        let Some(&(key, _)) = known.get(&stage) else { continue };
        // What cannot be judged counts as held.
        if let Ok(run) = readable(store.records.run(id).await)? {
            let places = known.values().map(|(key, _)| key);
            let newest = Plan::iterations_done(&run, places).last().copied().unwrap_or(0);
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
