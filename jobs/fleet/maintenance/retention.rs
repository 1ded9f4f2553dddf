//! What a run drops of its own results while it goes on, as its `[retention]` says.
//!
//! The run first notes what it no longer holds; then the bytes go that no run of the store holds: a death in between
//! leaves only what a gc sweeps. To know that, it reads the index of every run that was not complete at the last look, so
//! it looks no more often than costs it a small share of its time, and once more when it is done. A run that begins to
//! need a blob in that very moment finds it missing and recomputes it; no result can be wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use agrpo_spec::{ArtifactDigest, Plan, Retention, Run, RunId, StageDigest, StageKey, StageKind};
use futures::{StreamExt, TryStreamExt};
use tokio::time::Instant;

use crate::maintenance::reachability;
use agrpo_store::JobsError;
use agrpo_store::{DroppedOutputs, Store};

/// Records read, and blobs deleted, at a time.
const AT_ONCE: usize = 32;
/// From one look to the next, at least, and in lengths of a look.
const PAUSE: Duration = Duration::from_secs(10);
const SHARE: u32 = 20;

type Index = BTreeMap<StageKey, StageDigest>;

/// What went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dropped {
    pub(crate) blobs: u64,
    pub(crate) bytes: u64,
}

/// After a stage of a run: if it was an update, lets go what is no longer kept. Leaves it to a later one where
/// this process did so a moment ago, or is at it.
pub(crate) async fn after(store: &Store, run: RunId, key: StageKey) {
    let is_time = || store.references().try_lock().is_ok_and(|known| known.is_time());
    if key.kind == StageKind::Update && is_time() {
        at_end(store, run).await;
    }
}

/// Lets go what is no longer kept. Trouble is noted and left to the next time: a run does not end because
/// it keeps too much.
pub(crate) async fn at_end(store: &Store, run: RunId) {
    let began = Instant::now();
    let applied = apply(store, run).await;
    store.references().lock().await.rest(PAUSE.max(began.elapsed() * SHARE));
    match applied {
        Ok(Dropped { blobs: 0, .. }) => {}
        Ok(Dropped { blobs, bytes }) => {
            tracing::info!(run = run.short(), blobs, bytes, "let go what is not kept");
        }
        Err(error) => {
            tracing::warn!(run = run.short(), %error, "could not let go what is not kept");
        }
    }
}

/// Lets go what a run's retention does not keep at the point where the run stands.
pub(crate) async fn apply(store: &Store, id: RunId) -> Result<Dropped, JobsError> {
    let retention = store.retention(id).await?;
    if retention.keeps_all() {
        return Ok(Dropped::default());
    }
    let run = store.run(id).await?;
    let due = due(store, &run, retention).await?;
    for (stage, dropped) in &due {
        store.note_dropped(id, *stage, dropped).await?;
    }
    let outputs = due.values().flat_map(|dropped| dropped.outputs.values());
    let mut blobs: BTreeMap<ArtifactDigest, u64> =
        outputs.map(|record| (record.digest, record.size)).collect();
    if !blobs.is_empty() {
        spare_held(store, &mut blobs).await?;
    }
    let deletions: Vec<_> = blobs.keys().map(|digest| store.delete_blob(*digest)).collect();
    let deletions = futures::stream::iter(deletions).buffer_unordered(AT_ONCE);
    deletions.try_collect::<Vec<()>>().await?;
    Ok(Dropped { blobs: blobs.len() as u64, bytes: blobs.values().sum() })
}

/// What a run would let go now and has not yet noted.
pub(crate) async fn due(
    store: &Store,
    run: &Run,
    retention: Retention,
) -> Result<BTreeMap<StageDigest, DroppedOutputs>, JobsError> {
    let index = store.recorded_stages(run.id()).await?;
    let noted = store.stages_with_dropped(run.id()).await?;
    let Some(newest) = newest_update(store, run, &index).await? else {
        return Ok(BTreeMap::new());
    };
    let going = index.iter().filter_map(|(key, stage)| {
        let names = retention.let_go(run, *key, newest);
        let wanted = names.is_empty() || noted.contains(stage) || is_needed(run, &index, *key);
        (!wanted).then_some((*key, *stage, names))
    });
    let reads = going.map(|(key, stage, names)| async move {
        let Some(manifest) = store.manifest(stage).await? else { return Ok(None) };
        if Plan::place(run, &manifest.spec) != Some(key) {
            store.log_incompatible(run.id(), key, stage);
            return Ok(None);
        }
        let is_named = |output: &str| {
            names.iter().any(|name| output.split('/').next().is_some_and(|first| first == *name))
        };
        let outputs = manifest.outputs.into_iter().filter(|(output, _)| is_named(output));
        Ok::<_, JobsError>(Some((stage, DroppedOutputs { key, outputs: outputs.collect() })))
    });
    let reads: Vec<_> = reads.collect();
    let reads = futures::stream::iter(reads).buffer_unordered(AT_ONCE);
    reads.try_filter_map(|found| async move { Ok(found) }).try_collect().await
}

/// The last iteration that is done and noted.
async fn newest_update(store: &Store, run: &Run, index: &Index) -> Result<Option<u32>, JobsError> {
    let inner = run.config().estimator.inner_updates;
    let whole = |key: &&StageKey| key.kind == StageKind::Update && key.inner == inner;
    for key in index.keys().rev().filter(whole) {
        if store.recorded_policy(run.id(), *key).await?.is_some() {
            return Ok(Some(key.iteration));
        }
    }
    Ok(None)
}

/// Whether an evaluation still waits for the policy that a stage left.
fn is_needed(run: &Run, index: &Index, key: StageKey) -> bool {
    let evaluation = StageKey::new(StageKind::Evaluation, key.iteration, 0);
    key.kind == StageKind::Update
        && key.inner == run.config().estimator.inner_updates
        && run.is_evaluated(key.iteration)
        && !index.contains_key(&evaluation)
}

/// Takes out of `blobs` whatever a run of the store holds.
async fn spare_held(
    store: &Store,
    blobs: &mut BTreeMap<ArtifactDigest, u64>,
) -> Result<(), JobsError> {
    let mut references = store.references().lock().await;
    let runs = store.runs().await?;
    references.retain_runs(&runs);
    for &id in &runs {
        if references.is_complete(id) {
            continue;
        }
        let run = store.run(id).await?;
        if !references.knows_imports(id) {
            let (named, _) = reachability::imports(store, &run).await?;
            let named = named.into_iter().map(|(_, digest, _)| digest);
            references.set_imports(id, named.collect());
        }
        let index = store.recorded_entries(id).await?;
        let new = index.iter().copied().filter(|(_, stage)| !references.knows(id, *stage));
        let reads = new.map(|(key, stage)| async move {
            Ok::<_, JobsError>((key, stage, store.manifest(stage).await?))
        });
        let reads: Vec<_> = reads.collect();
        let mut reads = futures::stream::iter(reads).buffer_unordered(AT_ONCE);
        while let Some((key, stage, manifest)) = reads.try_next().await? {
            if let Some(manifest) = manifest {
                references.add(id, key, stage, manifest.outputs);
            }
        }
        let places: BTreeSet<StageKey> = index.iter().map(|(key, _)| *key).collect();
        let is_known = index.iter().all(|(_, stage)| references.knows(id, *stage));
        let is_whole = is_known && places.len() as u64 == Plan::total_stages(&run);
        // One that other versions completed may yet be begun anew.
        if is_whole && !reachability::is_of_other_versions(store, id).await? {
            references.set_complete(id);
        }
    }
    // A stage that was let go is let go as its retention says: rewards and metrics stay.
    let mut notes: BTreeMap<(RunId, StageDigest), DroppedOutputs> = BTreeMap::new();
    for (id, stage) in references.naming(blobs) {
        let (Some(note), Some((key, known))) =
            (store.dropped(id, stage).await?, references.places(id, stage))
        else {
            continue;
        };
        // What cannot be judged counts as held.
        match store.run(id).await {
            Ok(run) => {
                let newest = reachability::newest_update(&run, known);
                notes.insert((id, stage), note.within(&run, key, newest));
            }
            Err(JobsError::Data(_) | JobsError::Incompatible(_)) => {}
            Err(error) => return Err(error),
        }
    }
    references.spare_held(blobs, |run, stage, name| {
        notes.get(&(run, stage)).is_some_and(|note| note.outputs.contains_key(name))
    });
    Ok(())
}

#[cfg(test)]
mod tests;
