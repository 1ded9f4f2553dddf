//! The part of a plan that a worker needs to know what follows from one stage.
//!
//! It jumps to the stage's iteration by the record of the update before it and reads only what the stage came from: a few
//! records, however long the run is. It knows neither what else is pending nor whether the run is done; `Progress` does.

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

    /// The run's stage of this place as far as the frontier knows it.
    pub(crate) fn pending(&self, key: StageKey) -> Option<&StageSpec> {
        self.plan.pending().get(&key)
    }

    /// Takes over the result of a stage, and notes a policy that it made; returns the places of what became ready
    /// through it.
    ///
    /// That is nothing where the frontier stands behind the stage already, where the way to it is not
    /// stored, or where the run has another stage in this place: a whole plan decides then.
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
        if key.kind == StageKind::Update {
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

    /// Brings the plan to the iteration of a stage; false where it is beyond or cannot be reached.
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

    /// Takes over results of pending stages, and of those that become pending through them, as far as
    /// they are wanted. Does not look for their blobs: a reader of one finds out whether it is there.
    async fn walk(&mut self, store: &Store, wanted: impl Fn(&StageKey) -> bool) -> Result<()> {
        let wanted = |key: &StageKey| key.kind != StageKind::Evaluation && wanted(key);
        let mut steps = Steps::default();
        while let Some(read) =
            steps.next(&self.plan, wanted, |stage| store.records.manifest(stage)).await?
        {
            for ((key, _), manifest) in read {
                if let Some(manifest) = manifest {
                    take(&mut self.plan, key, &manifest)?;
                }
            }
        }
        Ok(())
    }
}
