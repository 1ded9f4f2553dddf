//! A run's policies and their evaluations by its sealed policy notes, without a listing.
//!
//! Computes no stage. A note that is not sealed for this run and key is ignored (`Records::policy_note`), and a sealed
//! note counts only while no record of the run contradicts it: every process that can write to a store can seal.

use std::collections::BTreeSet;
use std::sync::Arc;

use agrpo_spec::{
    ArtifactDigest, Base, Checkpoint, Manifest, Plan, Run, StageKey, StageKind, StageSpec,
};
use agrpo_store::{JobsError, Store, readable};
use futures::{StreamExt, stream};

use super::steps::{AT_ONCE, each, record, take};
use crate::Result;

/// The policy after so many iterations, 0 for the base, if it is noted. Costs one read.
pub(crate) async fn policy_at(
    store: &Store,
    run: &Run,
    iteration: u32,
) -> Result<Option<ArtifactDigest>> {
    let key = match (iteration, run.base()) {
        (0, Base::Checkpoint(checkpoint)) => return Ok(Some(checkpoint.folder)),
        (0, Base::Scratch(..)) => Plan::last_chunk(run),
        _ => Some(Plan::last_update(run, iteration)),
    };
    let Some(key) = key else { return Ok(None) };
    Ok(store.records.policy_note(run.id(), key).await?.map(|note| note.policy))
}

/// The stages that evaluate the policy after so many iterations; none where it is not evaluated. `None` if the policy is
/// not noted. Costs one read.
pub(crate) async fn evaluations_of(
    store: &Store,
    run: &Run,
    iteration: u32,
) -> Result<Option<Vec<(StageKey, StageSpec)>>> {
    let Some(policy) = policy_at(store, run, iteration).await? else { return Ok(None) };
    let stage = |key| Some((key, Plan::evaluation_of(run, key, policy)?));
    Ok(Some(Plan::evaluations(run, iteration).into_iter().filter_map(stage).collect()))
}

/// The records that can be read of the stages that evaluate the policy after so many iterations; none if the policy is
/// not noted.
pub(crate) async fn evaluations_at(
    store: &Store,
    run: &Run,
    iteration: u32,
) -> Result<Vec<(StageKey, Manifest)>> {
    let stages = evaluations_of(store, run, iteration).await?.unwrap_or_default();
    let found = each(stages, |(key, spec)| async move {
        let found = readable(store.records.manifest(spec.digest()).await)?;
        Ok(found.ok().flatten().map(|manifest| (key, manifest)))
    });
    Ok(found.await?.into_iter().flatten().collect())
}

/// The records of all evaluation stages of a run that are done, also where other shards of their evaluation are not. One
/// listing, and a read for each policy and each stage.
pub async fn evaluations_so_far(store: &Store, run: &Run) -> Result<Vec<(StageKey, Manifest)>> {
    let entries = store.records.recorded_entries(run.id()).await?.into_iter();
    let evaluated = entries.filter(|(key, _)| key.kind == StageKind::Evaluation);
    let iterations: BTreeSet<u32> = evaluated.map(|(key, _)| key.iteration).collect();
    let found = each(iterations, |iteration| evaluations_at(store, run, iteration)).await?;
    Ok(found.into_iter().flatten().collect())
}

/// The policy before iteration 1: a checkpoint, or that of the last chunk of fine-tuning if it is noted and complete.
pub(crate) async fn base_policy(store: &Store, run: &Run) -> Result<Option<ArtifactDigest>> {
    let Some(last) = Plan::last_chunk(run) else { return policy_at(store, run, 0).await };
    Ok(complete_record(store, run, last).await?.and_then(|manifest| manifest.output("policy")))
}

/// The checkpoint after an iteration's last update, found without a listing; `None` if the update is not complete or
/// not noted, or if the run needs its base, which is neither `known` nor found.
pub(crate) async fn checkpoint_at(
    store: &Store,
    run: &Run,
    iteration: u32,
    known: Option<ArtifactDigest>,
) -> Result<Option<Checkpoint>> {
    let needs_base = run.config().estimator.kl.get() > 0.0;
    let base = match known {
        None if needs_base => base_policy(store, run).await?,
        known => known,
    };
    if needs_base && base.is_none() {
        return Ok(None);
    }
    let key = Plan::last_update(run, iteration);
    let manifest = complete_record(store, run, key).await?;
    Ok(manifest.and_then(|manifest| checkpoint(run, key, &manifest, base)))
}

/// The checkpoint after an update, if it is the run's update with this key.
pub(crate) fn checkpoint(
    run: &Run,
    key: StageKey,
    manifest: &Manifest,
    base: Option<ArtifactDigest>,
) -> Option<Checkpoint> {
    let (policy, optimizer) = (manifest.output("policy")?, manifest.output("optimizer")?);
    let is_ours = Plan::is_update_of(run, key, &manifest.spec);
    is_ours.then_some(Checkpoint { iteration: key.iteration, policy, optimizer, base })
}

/// Whether the records of fine-tuning and updates lead from the run's start to this update, each from the policy
/// before it, and the last iteration is one of this run. Also false if one of the records cannot be read. Two reads a
/// policy.
pub(crate) async fn is_led_to(store: &Store, run: &Run, last: StageKey) -> Result<bool> {
    let updates = (1..=last.iteration).flat_map(|iteration| {
        (1..=last.inner).map(move |inner| StageKey { iteration, inner, ..last })
    });
    let chunks = (0..run.sft_chunks()).map(|chunk| StageKey::new(StageKind::Sft, chunk, 0));
    let reads = chunks
        .chain(updates)
        .map(|key| async move { Ok::<_, JobsError>((key, noted_record(store, run, key).await?)) });
    let mut reads = stream::iter(reads).buffered(AT_ONCE);
    let mut plan = Plan::new(run.clone());
    let mut before: Option<Checkpoint> = None;
    while let Some(read) = reads.next().await {
        let (key, Some(manifest)) = read? else { return Ok(false) };
        if key.kind == StageKind::Sft {
            let is_own = plan.pending().get(&key).is_some_and(|spec| *spec == manifest.spec);
            if !is_own || take(&mut plan, key, &manifest).is_err() {
                return Ok(false);
            }
            continue;
        }
        let Some(at) = checkpoint(run, key, &manifest, None) else { return Ok(false) };
        let moved = before.as_ref().map(|before| before.policy).or(plan.policy());
        if manifest.spec.moved_policy() != moved {
            return Ok(false);
        }
        if key == last.of_update(1) {
            before.iter().for_each(|before| plan.leap(before));
            if !is_next(store, &plan, &manifest).await? {
                return Ok(false);
            }
        }
        before = Some(at);
    }
    Ok(true)
}

/// Whether the noted first update of a plan's next iteration is the run's. Five reads.
pub(crate) async fn is_followed(store: &Store, before: &Plan) -> Result<bool> {
    let key = Plan::first_update(before.run(), before.iteration() + 1);
    let Some(manifest) = noted_record(store, before.run(), key).await? else { return Ok(false) };
    is_next(store, before, &manifest).await
}

/// Whether an update is the first of a plan's next iteration: compares the policy that it moves, and what it reads of
/// the first shard, which depends on the run's whole configuration. Three reads.
async fn is_next(store: &Store, before: &Plan, update: &Manifest) -> Result<bool> {
    let (joined, iteration) = match &update.spec {
        StageSpec::Update(spec) => (spec.gradients.first().copied(), spec.iteration),
        StageSpec::Updates(spec) => (spec.shards.first().map(|s| s.rewards), spec.iteration),
        _ => return Ok(false),
    };
    let is_other = update.spec.moved_policy() != before.policy();
    if is_other || iteration != before.iteration() + 1 {
        return Ok(false);
    }
    let (mut plan, mut last) = (before.clone(), None);
    for (kind, output) in [
        (StageKind::Rollout, "trajectories"),
        (StageKind::Reward, "rewards"),
        (StageKind::Gradient, "gradient"),
    ] {
        let key = StageKey::new(kind, iteration, 0);
        let Some(pending) = plan.pending().get(&key) else { return Ok(false) };
        let Ok(Some(manifest)) = record(store, pending.digest()).await? else { return Ok(false) };
        if take(&mut plan, key, &manifest).is_err() {
            return Ok(false);
        }
        last = manifest.output(output);
        if Plan::joins(plan.run(), key).is_some() {
            break;
        }
    }
    Ok(last.is_some() && joined == last)
}

/// The record of the stage that is noted under this key, if it can be read.
async fn noted_record(store: &Store, run: &Run, key: StageKey) -> Result<Option<Arc<Manifest>>> {
    let Some(stage) = store.records.recorded_policy(run.id(), key).await? else { return Ok(None) };
    Ok(record(store, stage).await?.unwrap_or_default())
}

/// The same if all its outputs exist. Quarantines a damaged record.
async fn complete_record(store: &Store, run: &Run, key: StageKey) -> Result<Option<Manifest>> {
    let Some(stage) = store.records.recorded_policy(run.id(), key).await? else { return Ok(None) };
    store.records.usable_manifest(run.id(), stage).await
}
