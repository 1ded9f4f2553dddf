//! Where a run stands: its plan with the results that the store has.
//!
//! Resuming costs one listing and two reads an iteration: the sealed note of the newest update leads to its complete
//! manifest, which is all that going on needs, once the records of the updates before it lead there (`policy_notes.rs`).
//! Otherwise the run is walked from its start (`walk.rs`); what is not complete is computed. Computes no stage.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use agrpo_spec::{
    ArtifactDigest, Checkpoint, Manifest, Plan, PlanError, Run, StageDigest, StageKey, StageKind,
};
use futures::future::try_join_all;
use futures::{StreamExt, TryStreamExt};

use crate::planning::policy_notes::{
    is_followed, is_led_to, is_update_of, last_chunk, last_update, policy_at,
};
use crate::planning::walk::Walk;
use agrpo_store::JobsError;
use agrpo_store::Store;

/// Manifests read at the same time.
pub(crate) const READS: usize = 32;

type Index = BTreeSet<(StageKey, StageDigest)>;

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
        let recorded: Index = store.recorded_entries(run.id()).await?.into_iter().collect();
        let (inner, last) =
            (run.config().estimator.inner_updates, run.config().training.iterations);
        let mut updates: Vec<StageKey> = recorded
            .iter()
            .rev()
            .map(|(key, _)| *key)
            .filter(|key| key.kind == StageKind::Update && key.inner == inner)
            .filter(|key| (1..=last).contains(&key.iteration))
            .collect();
        updates.dedup();
        let needs_base = run.config().estimator.kl.get() > 0.0;
        if let Some(newest) = updates.first() {
            let noted = store.recorded_policy(run.id(), *newest).await?;
            let is_listed = noted.is_some_and(|stage| recorded.contains(&(*newest, stage)));
            if !is_listed || !is_led_to(store, &run, *newest).await? {
                let own = note_policies(store, &run, &recorded).await?;
                updates.retain(|key| own.contains_key(key));
            }
        }
        let base = if needs_base { base_policy(store, &run).await? } else { None };
        for key in updates {
            if needs_base && base.is_none() {
                break;
            }
            let Some(at) = update_at(store, &run, key.iteration, base).await? else { continue };
            let Some(missing) = missing_evaluations(store, &run, &at).await? else { continue };
            let done = stages_until(&run, &at) - missing.len() as u64;
            return Ok(Self { plan: Plan::resume(run, &at, missing), recorded, done });
        }
        Ok(Self { plan: Plan::new(run), recorded, done: 0 })
    }

    /// Opens a run at its start, to look at every stage.
    pub(crate) async fn at_start(store: &Store, run: Run) -> Result<Self, JobsError> {
        let recorded = store.recorded_entries(run.id()).await?.into_iter().collect();
        Ok(Self { plan: Plan::new(run), recorded, done: 0 })
    }

    /// Takes over whole iterations by the records of their last updates, with a look at no more than one shard
    /// of what lies before them: seven reads an iteration. Evaluations stay pending until they are found.
    pub(crate) async fn leap(&mut self, store: &Store) -> Result<(), JobsError> {
        while self.plan.policy().is_some() && !self.is_at_its_end() {
            let next = self.plan.iteration() + 1;
            let run = self.plan.run();
            if !is_followed(store, &self.plan).await? {
                return Ok(());
            }
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
            if !self.recorded.contains(&(*key, manifest.stage)) {
                store.record_stage(run, *key, manifest.stage).await?;
            }
            store.note_policy(run, *key, manifest).await?;
        }
        Ok(hits)
    }

    /// Notes what the index of a run that is done lacks: a worker that died as soon as it had published
    /// noted nothing, and those who went on by a later update never looked there. One listing, and a read
    /// a policy; a walk from the start where something is lacking or stands for something else.
    pub(crate) async fn complete_index(&self, store: &Store) -> Result<(), JobsError> {
        let run = self.plan.run();
        let recorded: Index = store.recorded_entries(run.id()).await?.into_iter().collect();
        let policies = recorded
            .iter()
            .filter(|(key, _)| matches!(key.kind, StageKind::Sft | StageKind::Update))
            .map(|(key, stage)| async move {
                Ok::<_, JobsError>(store.recorded_policy(run.id(), *key).await? == Some(*stage))
            });
        let mut fits = futures::stream::iter(policies.collect::<Vec<_>>()).buffer_unordered(READS);
        let mut is_whole = recorded.len() as u64 == self.total();
        while let Some(fit) = fits.next().await {
            is_whole &= fit?;
        }
        if is_whole {
            return Ok(());
        }
        drop(fits);
        // Looks only: a record that is damaged by now stays for its next reader, as nothing computes it again here.
        note_policies(store, run, &recorded).await.map(drop)
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
pub(crate) fn corrupt(error: &PlanError, manifest: &Manifest) -> JobsError {
    match error {
        PlanError::MissingOutput { .. } => JobsError::Data(format!(
            "stages/{} is corrupt: {error}; delete it, and agrpo run FILE --repair computes the stage again",
            manifest.stage
        )),
        error => JobsError::Internal(error.to_string()),
    }
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

/// Follows a run from its start and notes its policies, where notes are lost, from before they were sealed,
/// or where the index says otherwise; and what the index named something else for.
async fn note_policies(
    store: &Store,
    run: &Run,
    recorded: &Index,
) -> Result<BTreeMap<StageKey, StageDigest>, JobsError> {
    let mut walk = Walk::new(run.clone());
    for (key, manifest) in walk.advance(store).await? {
        if !recorded.contains(&(key, manifest.stage)) {
            store.record_stage(run.id(), key, manifest.stage).await?;
        }
        store.note_policy(run.id(), key, &manifest).await?;
    }
    Ok(walk.stages().clone())
}

/// The policy before iteration 1: a checkpoint, or what the last chunk of fine-tuning left if it is
/// noted and complete.
pub(crate) async fn base_policy(
    store: &Store,
    run: &Run,
) -> Result<Option<ArtifactDigest>, JobsError> {
    let Some(last) = last_chunk(run) else { return policy_at(store, run, 0).await };
    let Some(stage) = store.recorded_policy(run.id(), last).await? else { return Ok(None) };
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
    let is_ours = is_update_of(run, key, &manifest.spec);
    let outputs = (manifest.output("policy"), manifest.output("optimizer"));
    let (true, (Some(policy), Some(optimizer))) = (is_ours, outputs) else { return Ok(None) };
    Ok(Some(Checkpoint { iteration: key.iteration, policy, optimizer, base }))
}

/// The policies before the checkpoint whose evaluation has no result yet. `None` where one of these
/// policies is not noted.
async fn missing_evaluations(
    store: &Store,
    run: &Run,
    at: &Checkpoint,
) -> Result<Option<Vec<(u32, ArtifactDigest)>>, JobsError> {
    let evaluated = (0..at.iteration).filter(|&iteration| run.is_evaluated(iteration));
    let looks = evaluated.map(|iteration| async move {
        let Some(policy) = policy_at(store, run, iteration).await? else {
            return Ok((iteration, None, false));
        };
        let stage = Plan::evaluation_of(run, policy).digest();
        let is_done = store.usable_manifest(run.id(), stage).await?.is_some();
        Ok::<_, JobsError>((iteration, Some(policy), is_done))
    });
    let looks: Vec<_> = futures::stream::iter(looks).buffered(READS).try_collect().await?;
    let missing = looks.into_iter().filter(|(_, _, is_done)| !is_done);
    Ok(missing.map(|(iteration, policy, _)| Some((iteration, policy?))).collect())
}

/// Stages that lie before a checkpoint, evaluations of earlier policies included.
fn stages_until(run: &Run, at: &Checkpoint) -> u64 {
    let iterations = u64::from(at.iteration);
    let evaluations = iterations.div_ceil(u64::from(run.config().evaluation.every));
    u64::from(run.sft_chunks()) + iterations * Plan::stages_of_an_iteration(run) + evaluations
}

#[cfg(test)]
mod tests;
