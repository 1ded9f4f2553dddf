//! A plan walked through the store's results: where a run stands, whoever computed what.
//!
//! Resuming costs one listing and few reads: the index leads to the newest update, whose complete
//! manifest is all that going on needs. An index entry without its complete manifest counts for
//! nothing; at worst the plan is walked from its start. Nothing here computes a stage.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use agrpo_spec::{
    ArtifactDigest, Base, Checkpoint, Manifest, Plan, PlanError, Run, StageDigest, StageKey,
    StageKind, StageSpec,
};
use futures::future::try_join_all;
use futures::{StreamExt, TryStreamExt};

use crate::error::JobsError;
use crate::store::Store;

mod trail;

pub(crate) use trail::Trail;

/// Manifests read at the same time.
const READS: usize = 32;

type Index = BTreeMap<StageKey, StageDigest>;

/// Where a run stands.
#[derive(Clone, Debug)]
pub struct Progress {
    plan: Plan,
    /// What the index held when the run was opened.
    recorded: Index,
    done: u64,
}

impl Progress {
    /// Opens a run at its newest complete update, or at its start.
    pub async fn open(store: &Store, run: Run) -> Result<Self, JobsError> {
        let recorded = store.recorded_stages(run.id()).await?;
        let updates: Vec<_> = recorded
            .iter()
            .rev()
            .filter(|(key, _)| key.kind == StageKind::Update && key.iteration > 0)
            .filter(|(key, _)| key.inner == run.config().estimator.inner_updates)
            .map(|(key, stage)| (*key, *stage))
            .collect();
        let base = base(store, &run, &recorded).await?;
        let needs_base = run.config().estimator.kl.get() > 0.0;
        for (key, stage) in updates {
            if needs_base && base.is_none() {
                break;
            }
            let Some(at) = checkpoint(store, &run, key, stage, base).await? else { continue };
            let Some(missing) = missing_evaluations(store, &run, &recorded, &at).await? else {
                continue;
            };
            let done = stages_until(&run, &at) - missing.len() as u64;
            return Ok(Self { plan: Plan::resume(run, &at, missing), recorded, done });
        }
        Ok(Self { plan: Plan::new(run), recorded, done: 0 })
    }

    /// Takes over whole iterations by the records of their last updates, without a look at what lies
    /// before them: two reads an iteration. Evaluations stay pending until they are found.
    pub(crate) async fn leap(&mut self, store: &Store) -> Result<(), JobsError> {
        while self.plan.policy().is_some() && !self.is_at_its_end() {
            let next = self.plan.iteration() + 1;
            let run = self.plan.run();
            let Some(at) = update_at(store, run, next, self.plan.base()).await? else {
                return Ok(());
            };
            self.plan.leap(&at);
            let before =
                |key: &&StageKey| key.kind == StageKind::Evaluation && key.iteration < at.iteration;
            let missing = self.plan.pending().keys().filter(before).count() as u64;
            self.done = stages_until(self.plan.run(), &at) - missing;
        }
        Ok(())
    }

    fn is_at_its_end(&self) -> bool {
        self.plan.iteration() >= self.plan.run().config().training.iterations
    }

    /// Takes over every result that the store has for a pending stage, and for those that become
    /// pending through it; notes them in the run's index. Answers with what was found, in order.
    pub async fn catch_up(
        &mut self,
        store: &Store,
    ) -> Result<Vec<(StageKey, Arc<Manifest>)>, JobsError> {
        let mut found = vec![];
        let mut asked = BTreeSet::new();
        loop {
            let mut hits = self.step(store, &mut asked).await?;
            if hits.is_empty() {
                return Ok(found);
            }
            found.append(&mut hits);
        }
    }

    /// Takes over the results of those pending stages that were not asked for yet.
    async fn step(
        &mut self,
        store: &Store,
        asked: &mut BTreeSet<StageKey>,
    ) -> Result<Vec<(StageKey, Arc<Manifest>)>, JobsError> {
        let run = self.plan.run().id();
        let new: Vec<_> =
            self.plan.pending().iter().filter(|(key, _)| asked.insert(**key)).collect();
        let reads = new.into_iter().map(|(key, spec)| async move {
            Ok::<_, JobsError>((*key, store.settled_manifest(run, spec.digest()).await?))
        });
        let found = try_join_all(reads).await?.into_iter();
        let hits: Vec<_> =
            found.filter_map(|(key, manifest)| Some((key, Arc::new(manifest?)))).collect();
        for (key, manifest) in &hits {
            self.finished(*key, manifest)?;
            if self.recorded.get(key) != Some(&manifest.stage) {
                store.record_stage(run, *key, manifest.stage).await?;
            }
        }
        Ok(hits)
    }

    /// Notes what the index of a run that is done lacks: a worker that died as soon as it had published
    /// noted nothing, and those who went on by a later update never looked there. One listing; a walk from
    /// the start where something is lacking.
    pub(crate) async fn complete_index(&self, store: &Store) -> Result<(), JobsError> {
        let run = self.plan.run();
        let recorded = store.recorded_stages(run.id()).await?;
        if recorded.len() as u64 >= self.total() {
            return Ok(());
        }
        let mut whole = Self { plan: Plan::new(run.clone()), recorded, done: 0 };
        let mut asked = BTreeSet::new();
        while !whole.step(store, &mut asked).await?.is_empty() {}
        Ok(())
    }

    /// Takes over a stage's result; answers with the stages that became ready. Internal error if the
    /// stage is not pending, data error if the result lacks an output.
    pub fn finished(
        &mut self,
        key: StageKey,
        manifest: &Manifest,
    ) -> Result<Vec<StageKey>, JobsError> {
        let ready = self.plan.finished(key, |name| manifest.output(name));
        let ready = ready.map_err(|error| corrupt(&error, manifest))?;
        self.done += 1;
        Ok(ready)
    }

    /// What is pending.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Stages of the run that are done.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// All stages of the run.
    pub fn total(&self) -> u64 {
        Plan::total_stages(self.plan.run())
    }
}

/// What a plan's refusal of a result means.
fn corrupt(error: &PlanError, manifest: &Manifest) -> JobsError {
    match error {
        PlanError::MissingOutput { .. } => JobsError::Data(format!(
            "stages/{} is corrupt: {error}; delete it and start the run again: the stage is then \
             computed anew",
            manifest.stage
        )),
        error => JobsError::Internal(error.to_string()),
    }
}

/// The last update of an iteration.
pub(crate) fn last_update(run: &Run, iteration: u32) -> StageKey {
    let inner = run.config().estimator.inner_updates;
    StageKey::new(StageKind::Update, iteration, 0).of_update(inner)
}

/// What an iteration's last update left, found without a listing; `None` where it is not done or not
/// noted.
pub(crate) async fn update_at(
    store: &Store,
    run: &Run,
    iteration: u32,
    base: Option<ArtifactDigest>,
) -> Result<Option<Checkpoint>, JobsError> {
    let key = last_update(run, iteration);
    match store.recorded_policy(run.id(), key).await? {
        Some(stage) => checkpoint(store, run, key, stage, base).await,
        None => Ok(None),
    }
}

/// The policy before iteration 1, where the run needs it: for its divergence.
async fn base(
    store: &Store,
    run: &Run,
    recorded: &Index,
) -> Result<Option<ArtifactDigest>, JobsError> {
    if run.config().estimator.kl.get() > 0.0 {
        base_policy(store, run, recorded).await
    } else {
        Ok(None)
    }
}

/// The policy before iteration 1: a checkpoint, or what the last chunk of fine-tuning left if it is
/// complete.
async fn base_policy(
    store: &Store,
    run: &Run,
    recorded: &Index,
) -> Result<Option<ArtifactDigest>, JobsError> {
    let chunks = match run.base() {
        Base::Checkpoint(checkpoint) => return Ok(Some(checkpoint.folder)),
        Base::Scratch(..) => run.sft_chunks(),
    };
    let last = StageKey::new(StageKind::Sft, chunks.saturating_sub(1), 0);
    let Some(&stage) = recorded.get(&last) else { return Ok(None) };
    let manifest = store.usable_manifest(run.id(), stage).await?;
    Ok(manifest.and_then(|manifest| manifest.output("policy")))
}

/// What an update left, if it is the run's and complete.
async fn checkpoint(
    store: &Store,
    run: &Run,
    key: StageKey,
    stage: StageDigest,
    base: Option<ArtifactDigest>,
) -> Result<Option<Checkpoint>, JobsError> {
    let Some(manifest) = store.usable_manifest(run.id(), stage).await? else { return Ok(None) };
    let ours = match &manifest.spec {
        StageSpec::Update(spec) => {
            spec.iteration == key.iteration
                && spec.iterations == run.config().training.iterations
                && spec.numerics == run.config().numerics
        }
        _ => false,
    };
    let outputs = (manifest.output("policy"), manifest.output("optimizer"));
    let (true, (Some(policy), Some(optimizer))) = (ours, outputs) else { return Ok(None) };
    Ok(Some(Checkpoint { iteration: key.iteration, policy, optimizer, base }))
}

/// The policies before the checkpoint whose evaluation has no result yet. `None` where the index
/// does not lead to such a policy.
async fn missing_evaluations(
    store: &Store,
    run: &Run,
    recorded: &Index,
    at: &Checkpoint,
) -> Result<Option<Vec<(u32, ArtifactDigest)>>, JobsError> {
    let evaluated = (0..at.iteration).filter(|&iteration| run.is_evaluated(iteration));
    let missing: Vec<u32> = futures::stream::iter(evaluated)
        .map(|iteration| async move {
            let key = StageKey::new(StageKind::Evaluation, iteration, 0);
            let result = match recorded.get(&key) {
                Some(stage) => store.usable_manifest(run.id(), *stage).await?,
                None => None,
            };
            Ok::<_, JobsError>(result.is_none().then_some(iteration))
        })
        .buffered(READS)
        .try_filter_map(|missing| async move { Ok(missing) })
        .try_collect()
        .await?;
    let mut policies = vec![];
    for iteration in missing {
        let found = if iteration == 0 {
            base_policy(store, run, recorded).await?
        } else {
            let updates = run.config().estimator.inner_updates;
            let key = StageKey::new(StageKind::Update, iteration, 0).of_update(updates);
            let Some(stage) = recorded.get(&key) else { return Ok(None) };
            let manifest = store.usable_manifest(run.id(), *stage).await?;
            manifest.and_then(|manifest| manifest.output("policy"))
        };
        let Some(policy) = found else { return Ok(None) };
        policies.push((iteration, policy));
    }
    Ok(Some(policies))
}

/// Stages that lie before a checkpoint, evaluations of earlier policies included.
fn stages_until(run: &Run, at: &Checkpoint) -> u64 {
    let iterations = u64::from(at.iteration);
    let evaluations = iterations.div_ceil(u64::from(run.config().evaluation.every));
    u64::from(run.sft_chunks()) + iterations * Plan::stages_of_an_iteration(run) + evaluations
}

#[cfg(test)]
mod tests;
