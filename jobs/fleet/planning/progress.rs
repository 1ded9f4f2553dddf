//! A run's progress: its plan with the results in the store.
//!
//! Resuming costs one listing and two reads an iteration: the sealed note of the newest update names its manifest,
//! from which the run goes on if it is complete and the records of the updates before it lead there
//! (`policy_notes.rs`). Otherwise the run is walked from its start (`walk.rs`); what is not complete is computed.
//! Computes no stage.

use std::collections::BTreeSet;
use std::sync::Arc;

use agrpo_spec::{Checkpoint, Manifest, Plan, Run, RunId, StageKey, StageKind, StageSpec};
use agrpo_store::Store;

use super::policy_notes::{checkpoint_at, evaluations_of, is_followed, is_led_to};
use super::steps::{Entry, Stages, Steps, each, take};
use super::walk::{Found, Walk};
use crate::Result;

type Index = BTreeSet<Entry>;

/// A run and its results so far.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    /// What is pending.
    pub(crate) plan: Plan,
    /// The entries of the index when the run was opened.
    recorded: Index,
    /// Stages of the run that are done.
    pub(crate) done: u64,
}

impl Progress {
    /// Opens a run at its newest complete update, or at its start.
    pub(crate) async fn open(store: &Store, run: Run) -> Result<Self> {
        let Self { plan, recorded, .. } = Self::at_start(store, run).await?;
        let run = plan.run();
        let mut iterations = Plan::iterations_done(run, recorded.iter().map(|(key, _)| key));
        iterations.retain(|iteration| (1..=run.config().training.iterations).contains(iteration));
        if let Some(&newest) = iterations.last() {
            let key = Plan::last_update(run, newest);
            let noted = store.records.recorded_policy(run.id(), key).await?;
            let is_listed = noted.is_some_and(|stage| recorded.contains(&(key, stage)));
            if !is_listed || !is_led_to(store, run, key).await? {
                let own = note_policies(store, run, &recorded).await?;
                iterations
                    .retain(|&iteration| own.contains_key(&Plan::last_update(run, iteration)));
            }
        }
        for iteration in iterations.into_iter().rev() {
            let Some(at) = checkpoint_at(store, run, iteration, None).await? else { continue };
            let Some(missing) = missing_evaluations(store, run, &at).await? else { continue };
            let done = Plan::stages_before(run, iteration) - missing.len() as u64;
            return Ok(Self { plan: Plan::resume(run.clone(), &at, missing), recorded, done });
        }
        Ok(Self { plan, recorded, done: 0 })
    }

    /// Opens a run at its start, to look at every stage.
    pub(crate) async fn at_start(store: &Store, run: Run) -> Result<Self> {
        let recorded = store.records.recorded_entries(run.id()).await?.into_iter().collect();
        Ok(Self { plan: Plan::new(run), recorded, done: 0 })
    }

    /// Takes over whole iterations by the records of their last updates, and checks one shard of each: seven reads an
    /// iteration. Evaluations stay pending until they are found.
    pub(crate) async fn leap(&mut self, store: &Store) -> Result<()> {
        let run = self.plan.run().clone();
        while self.plan.policy().is_some()
            && self.plan.iteration() < run.config().training.iterations
            && is_followed(store, &self.plan).await?
        {
            let (next, base) = (self.plan.iteration() + 1, self.plan.base());
            let Some(at) = checkpoint_at(store, &run, next, base).await? else { break };
            self.plan.leap(&at);
            let before =
                |key: &&StageKey| key.kind == StageKind::Evaluation && key.iteration < next;
            let missing = self.plan.pending().keys().filter(before).count() as u64;
            self.done = Plan::stages_before(&run, next) - missing;
        }
        Ok(())
    }

    /// Takes over every result that the store has for a pending stage, and for those that become pending through it;
    /// adds them to the run's index. Returns what was found, in order.
    pub(crate) async fn catch_up(&mut self, store: &Store) -> Result<Found> {
        let run = self.plan.run().id();
        let (mut found, mut steps) = (vec![], Steps::default());
        let settled = |stage| store.records.settled_manifest(run, stage);
        while let Some(((key, _), read)) = steps.next(&self.plan, |_| true, settled).await? {
            let Some(manifest) = read else { continue };
            self.finished(key, &manifest)?;
            note(store, run, &self.recorded, key, &manifest).await?;
            found.push((key, Arc::new(manifest)));
        }
        Ok(found)
    }

    /// Completes the index of a finished run: a worker that died right after it published added nothing, and workers
    /// that went on from a later update did not look for earlier stages. One listing, and a read a policy; a walk from
    /// the start if an entry is missing or names another stage.
    pub(crate) async fn complete_index(&self, store: &Store) -> Result<()> {
        let run = self.plan.run();
        let recorded: Index = store.records.recorded_entries(run.id()).await?.into_iter().collect();
        let policies = recorded.iter().copied().filter(|(key, _)| key.makes_policy());
        let are_noted = each(policies, |(key, stage)| async move {
            Ok(store.records.recorded_policy(run.id(), key).await? == Some(stage))
        });
        if are_noted.await?.into_iter().all(|is_noted| is_noted)
            && recorded.len() as u64 == self.total()
        {
            return Ok(());
        }
        // A damaged record is not quarantined: nothing computes it again here.
        note_policies(store, run, &recorded).await.map(drop)
    }

    /// Takes over a stage's result; returns the stages that became ready. Internal error if the
    /// stage is not pending, data error if the result lacks an output.
    pub(crate) fn finished(&mut self, key: StageKey, manifest: &Manifest) -> Result<Vec<StageKey>> {
        let ready = take(&mut self.plan, key, manifest)?;
        self.done += 1;
        Ok(ready)
    }

    /// All stages of the run.
    pub(crate) fn total(&self) -> u64 {
        Plan::total_stages(self.plan.run())
    }
}

/// Walks a run from its start; notes its policies, and indexes stages that the index does not name. For notes that are
/// lost, not sealed, or contradicted by the index.
async fn note_policies(store: &Store, run: &Run, recorded: &Index) -> Result<Stages> {
    let mut walk = Walk::new(run.clone());
    for (key, manifest) in walk.advance(store).await? {
        note(store, run.id(), recorded, key, &manifest).await?;
    }
    Ok(walk.stages().clone())
}

/// Adds a finished stage to the run's index if it is not there, and notes the policy that it made.
async fn note(
    store: &Store,
    run: RunId,
    recorded: &Index,
    key: StageKey,
    manifest: &Manifest,
) -> Result<()> {
    if !recorded.contains(&(key, manifest.stage)) {
        store.records.record_stage(run, key, manifest.stage).await?;
    }
    store.records.note_policy(run, key, manifest).await
}

/// The evaluation stages of the policies before the checkpoint that have no result yet. `None` if one of the policies
/// is not noted.
async fn missing_evaluations(
    store: &Store,
    run: &Run,
    at: &Checkpoint,
) -> Result<Option<Vec<(StageKey, StageSpec)>>> {
    let evaluated = (0..at.iteration).filter(|&iteration| run.is_evaluated(iteration));
    let stages = each(evaluated, |iteration| evaluations_of(store, run, iteration)).await?;
    let stages: Option<Vec<_>> = stages.into_iter().collect();
    let Some(stages) = stages else { return Ok(None) };
    let looks = each(stages.into_iter().flatten(), |(key, spec)| async move {
        let found = store.records.usable_manifest(run.id(), spec.digest()).await?;
        Ok(found.is_none().then_some((key, spec)))
    });
    Ok(Some(looks.await?.into_iter().flatten().collect()))
}

#[cfg(test)]
mod tests;
