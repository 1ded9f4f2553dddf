//! What a run's sealed policy notes say without a listing: its policies, and the evaluations of these.
//!
//! Computes nothing. A note that is not sealed for the run and the place is ignored (`Records::policy_note`), and a sealed note
//! counts only while no record of the run contradicts it: every process that can write to a store can seal.

use agrpo_spec::{
    ArtifactDigest, Base, Checkpoint, Manifest, Plan, Run, StageKey, StageKind, StageSpec,
};
use agrpo_store::{JobsError, Store};
use futures::{StreamExt, stream};

use super::steps::{AT_ONCE, readable};
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

/// The record of the run's evaluation after so many iterations, if there is one and its policy is noted.
pub async fn evaluation_at(store: &Store, run: &Run, iteration: u32) -> Result<Option<Manifest>> {
    match policy_at(store, run, iteration).await? {
        Some(policy) => store.records.manifest(Plan::evaluation_of(run, policy).digest()).await,
        None => Ok(None),
    }
}

/// The policy before iteration 1: a checkpoint, or what the last chunk of fine-tuning left if it is
/// noted and complete.
pub(crate) async fn base_policy(store: &Store, run: &Run) -> Result<Option<ArtifactDigest>> {
    let Some(last) = Plan::last_chunk(run) else { return policy_at(store, run, 0).await };
    Ok(complete_record(store, run, last).await?.and_then(|manifest| manifest.output("policy")))
}

/// What an iteration's last update left, found without a listing; `None` where it is not complete or not noted, or
/// where the run needs its base, which is not `known` and cannot be found.
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

/// What an update left, if it is the run's in this place.
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

/// Whether the records of updates and fine-tuning lead from the run's start to its update of this place, each
/// from the policy before it, and the last iteration is one of this run. False as well where a record that would
/// tell cannot be read. Two reads a policy.
pub(crate) async fn is_led_to(store: &Store, run: &Run, last: StageKey) -> Result<bool> {
    let updates = (1..=last.iteration).flat_map(|iteration| {
        (1..=last.inner).map(move |inner| StageKey::update(iteration, inner))
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
            if !is_own || plan.finished(key, |name| manifest.output(name)).is_err() {
                return Ok(false);
            }
            continue;
        }
        let StageSpec::Update(spec) = &manifest.spec else { return Ok(false) };
        let Some(at) = checkpoint(run, key, &manifest, None) else { return Ok(false) };
        let moved = before.as_ref().map(|before| before.policy).or(plan.policy());
        if Some(spec.policy) != moved {
            return Ok(false);
        }
        if key == StageKey::update(last.iteration, 1) {
            before.iter().for_each(|before| plan.leap(before));
            if !is_next(store, &plan, &manifest).await? {
                return Ok(false);
            }
        }
        before = Some(at);
    }
    Ok(true)
}

/// Whether the first update that is noted of the iteration after a plan is the run's. Five reads.
pub(crate) async fn is_followed(store: &Store, before: &Plan) -> Result<bool> {
    let key = StageKey::update(before.iteration() + 1, 1);
    match noted_record(store, before.run(), key).await? {
        Some(manifest) => is_next(store, before, &manifest).await,
        None => Ok(false),
    }
}

/// Whether an iteration's first update is that of a plan which stands before it: by the policy that it moves,
/// and by the gradient of the first shard, which depends on all that the run asks for. Three reads.
async fn is_next(store: &Store, before: &Plan, update: &Manifest) -> Result<bool> {
    let StageSpec::Update(spec) = &update.spec else { return Ok(false) };
    if Some(spec.policy) != before.policy() || spec.iteration != before.iteration() + 1 {
        return Ok(false);
    }
    let (mut plan, mut gradient) = (before.clone(), None);
    for kind in [StageKind::Rollout, StageKind::Reward, StageKind::Gradient] {
        let key = StageKey::new(kind, spec.iteration, 0);
        let Some(pending) = plan.pending().get(&key) else { return Ok(false) };
        let Ok(Some(manifest)) = readable(store.records.manifest(pending.digest()).await)? else {
            return Ok(false);
        };
        if plan.finished(key, |name| manifest.output(name)).is_err() {
            return Ok(false);
        }
        gradient = manifest.output("gradient");
    }
    Ok(gradient.is_some() && spec.gradients.first().copied() == gradient)
}

/// The record of the policy that is noted in this place, if it can be read.
async fn noted_record(store: &Store, run: &Run, key: StageKey) -> Result<Option<Manifest>> {
    match store.records.recorded_policy(run.id(), key).await? {
        Some(stage) => Ok(readable(store.records.manifest(stage).await)?.unwrap_or_default()),
        None => Ok(None),
    }
}

/// The same if all its outputs are there. A damaged record is quarantined.
async fn complete_record(store: &Store, run: &Run, key: StageKey) -> Result<Option<Manifest>> {
    match store.records.recorded_policy(run.id(), key).await? {
        Some(stage) => store.records.usable_manifest(run.id(), stage).await,
        None => Ok(None),
    }
}
