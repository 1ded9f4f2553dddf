//! The part of a plan that a worker needs to find the stages that follow from one stage.
//!
//! It jumps to the stage's iteration by the record of the update before it and reads only records that the stage
//! depends on: a few, however long the run is. It knows neither what else is pending nor whether the run is done;
//! `Progress` does.

use agrpo_spec::{Manifest, Plan, Run, StageKey, StageKind, StageSpec};
use agrpo_store::Store;

use super::policy_notes::{base_policy, checkpoint_at};
use super::steps::{Steps, take};
use crate::Result;

#[derive(Debug)]
pub(crate) struct Frontier {
    plan: Plan,
}

impl Frontier {
    pub(crate) fn new(run: Run) -> Self {
        Self { plan: Plan::new(run) }
    }

    /// The run's stage with this key, if the frontier has reached it.
    pub(crate) fn pending(&self, key: StageKey) -> Option<&StageSpec> {
        self.plan.pending().get(&key)
    }

    /// Takes over the result of a stage, and notes the policy that it made; returns the keys of the stages that became
    /// ready.
    ///
    /// There are none if the frontier has passed the stage, if a record that leads to it is missing, or if the run has
    /// another stage with this key: a walk over the whole plan decides then.
    pub(crate) async fn finished(
        &mut self,
        store: &Store,
        key: StageKey,
        manifest: &Manifest,
    ) -> Result<Vec<StageKey>> {
        if key.kind == StageKind::Evaluation || !self.advance_to(store, key).await? {
            return Ok(vec![]);
        }
        let same_shard = key.inner == 1
            && matches!(key.kind, StageKind::Rollout | StageKind::Reward | StageKind::Gradient);
        self.walk(store, |before| *before < key && (!same_shard || before.shard == key.shard))
            .await?;
        if self.pending(key).is_none_or(|spec| spec.digest() != manifest.stage) {
            return Ok(vec![]);
        }
        store.records.note_policy(self.plan.run().id(), key, manifest).await?;
        if key.is_update() {
            self.plan.leave_evaluations();
        }
        take(&mut self.plan, key, manifest)
    }

    /// Reads all shards of an update; returns whether it can be computed.
    pub(crate) async fn join(&mut self, store: &Store, update: StageKey) -> Result<bool> {
        if self.advance_to(store, update).await? {
            self.walk(store, |before| *before < update).await?;
        }
        Ok(self.pending(update).is_some())
    }

    /// Moves the plan to the iteration of a stage; false if it has passed the iteration or cannot reach it.
    async fn advance_to(&mut self, store: &Store, key: StageKey) -> Result<bool> {
        let begun = self.plan.policy().is_some();
        if key.kind == StageKind::Sft {
            return Ok(!begun);
        }
        let wanted = key.iteration.saturating_sub(1);
        if begun && self.plan.iteration() >= wanted {
            return Ok(self.plan.iteration() == wanted);
        }
        let run = self.plan.run().clone();
        if wanted == 0 {
            let Some(base) = base_policy(store, &run).await? else { return Ok(false) };
            self.plan.leap_to_base(base);
        } else {
            let base = self.plan.base();
            let at = checkpoint_at(store, &run, wanted, base).await?;
            let Some(at) = at else { return Ok(false) };
            self.plan = Plan::resume(run, &at, []);
        }
        Ok(true)
    }

    /// Takes over results of wanted pending stages, and of those that become pending through them. Does not check
    /// that their blobs exist: a reader of a blob does.
    async fn walk(&mut self, store: &Store, wanted: impl Fn(&StageKey) -> bool) -> Result<()> {
        let wanted = |key: &StageKey| key.kind != StageKind::Evaluation && wanted(key);
        let read = |stage| store.records.manifest(stage);
        let mut steps = Steps::default();
        while let Some(((key, _), found)) = steps.next(&self.plan, wanted, read).await? {
            if let Some(manifest) = found {
                take(&mut self.plan, key, &manifest)?;
            }
        }
        Ok(())
    }
}
