//! What a run's sealed policy notes say without a listing: its policies, and the evaluations of these.
//!
//! Only reads. A note that is not sealed for the run and the place is ignored (`Store::policy_note`), and a sealed note
//! counts only while no record of the run contradicts it: every process that can write to a store can seal.

use futures::{StreamExt, stream};

use agrpo_spec::{
    ArtifactDigest, Base, Checkpoint, Manifest, Plan, Run, StageKey, StageKind, StageSpec,
};

use agrpo_store::JobsError;
use agrpo_store::Store;

/// The last update of an iteration.
pub(crate) fn last_update(run: &Run, iteration: u32) -> StageKey {
    let inner = run.config().estimator.inner_updates;
    StageKey::new(StageKind::Update, iteration, 0).of_update(inner)
}

/// The last chunk of fine-tuning, where a run has any.
pub(crate) fn last_chunk(run: &Run) -> Option<StageKey> {
    match run.base() {
        Base::Checkpoint(_) => None,
        Base::Scratch(..) => {
            Some(StageKey::new(StageKind::Sft, run.sft_chunks().saturating_sub(1), 0))
        }
    }
}

/// Whether a spec is an update as the run has it in this place, whatever it was computed from.
pub(crate) fn is_update_of(run: &Run, key: StageKey, spec: &StageSpec) -> bool {
    let StageSpec::Update(update) = spec else { return false };
    let inputs = (update.policy, update.optimizer_state, update.gradients.clone());
    Plan::update_of(run, key, inputs) == *spec
}

/// The policy after so many iterations, 0 for the base, if it is noted. Costs one read.
pub(crate) async fn policy_at(
    store: &Store,
    run: &Run,
    iteration: u32,
) -> Result<Option<ArtifactDigest>, JobsError> {
    let key = match (iteration, run.base()) {
        (0, Base::Checkpoint(checkpoint)) => return Ok(Some(checkpoint.folder)),
        (0, Base::Scratch(..)) => last_chunk(run),
        _ => Some(last_update(run, iteration)),
    };
    let Some(key) = key else { return Ok(None) };
    Ok(store.policy_note(run.id(), key).await?.map(|note| note.policy))
}

/// The record of the run's evaluation after so many iterations, if there is one and its policy is noted.
pub async fn evaluation_at(
    store: &Store,
    run: &Run,
    iteration: u32,
) -> Result<Option<Manifest>, JobsError> {
    match policy_at(store, run, iteration).await? {
        Some(policy) => store.manifest(Plan::evaluation_of(run, policy).digest()).await,
        None => Ok(None),
    }
}

/// Notes and records read at a time.
const READS: usize = 32;

/// Whether the records of updates and fine-tuning lead from the run's start to its update of this place, each
/// from the policy before it, and the last iteration is one of this run. False as well where a record that would
/// tell cannot be read. Two reads a policy.
pub(crate) async fn is_led_to(store: &Store, run: &Run, last: StageKey) -> Result<bool, JobsError> {
    let updates = (1..=last.iteration).flat_map(|iteration| {
        let place = StageKey::new(StageKind::Update, iteration, 0);
        (1..=last.inner).map(move |inner| place.of_update(inner))
    });
    let chunks = last_chunk(run).map_or(0, |chunk| chunk.iteration + 1);
    let chunks = (0..chunks).map(|chunk| StageKey::new(StageKind::Sft, chunk, 0));
    let reads = chunks
        .chain(updates)
        .map(|key| async move { Ok::<_, JobsError>((key, noted_record(store, run, key).await?)) });
    let mut reads = stream::iter(reads).buffered(READS);
    let mut plan = Plan::new(run.clone());
    let (mut newest, mut before) = (None, None);
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
        let outputs = (manifest.output("policy"), manifest.output("optimizer"));
        let (Some(policy), Some(optimizer)) = outputs else { return Ok(false) };
        if Some(spec.policy) != newest.or(plan.policy()) || !is_update_of(run, key, &manifest.spec)
        {
            return Ok(false);
        }
        if key.iteration == last.iteration && key.inner == 1 {
            before.iter().for_each(|before| plan.leap(before));
            if !is_next(store, &plan, &manifest).await? {
                return Ok(false);
            }
        }
        newest = Some(policy);
        before = Some(Checkpoint { iteration: key.iteration, policy, optimizer, base: None });
    }
    Ok(true)
}

/// Whether the first update that is noted of the iteration after a plan is the run's. Five reads.
pub(crate) async fn is_followed(store: &Store, before: &Plan) -> Result<bool, JobsError> {
    let key = StageKey::new(StageKind::Update, before.iteration() + 1, 0);
    match noted_record(store, before.run(), key).await? {
        Some(manifest) => is_next(store, before, &manifest).await,
        None => Ok(false),
    }
}

/// Whether an iteration's first update is that of a plan which stands before it: by the policy that it moves,
/// and by the gradient of the first shard, which depends on all that the run asks for. Three reads.
async fn is_next(store: &Store, before: &Plan, update: &Manifest) -> Result<bool, JobsError> {
    let StageSpec::Update(spec) = &update.spec else { return Ok(false) };
    if Some(spec.policy) != before.policy() || spec.iteration != before.iteration() + 1 {
        return Ok(false);
    }
    let (mut plan, mut gradient) = (before.clone(), None);
    for kind in [StageKind::Rollout, StageKind::Reward, StageKind::Gradient] {
        let key = StageKey::new(kind, spec.iteration, 0);
        let Some(pending) = plan.pending().get(&key) else { return Ok(false) };
        let Some(manifest) = readable(store.manifest(pending.digest()).await)? else {
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
async fn noted_record(
    store: &Store,
    run: &Run,
    key: StageKey,
) -> Result<Option<Manifest>, JobsError> {
    match store.recorded_policy(run.id(), key).await? {
        Some(stage) => readable(store.manifest(stage).await),
        None => Ok(None),
    }
}

fn readable(found: Result<Option<Manifest>, JobsError>) -> Result<Option<Manifest>, JobsError> {
    match found {
        Err(JobsError::Data(_) | JobsError::Incompatible(_)) => Ok(None),
        found => found,
    }
}
