//! The part of a plan that a worker needs to know what follows from one stage.
//!
//! It jumps to the stage's iteration by the record of the update before it and reads only what the stage came from: a few
//! records, however long the run is. It knows neither what else is pending nor whether the run is done; `Progress` does.

use agrpo_spec::{ArtifactDigest, Manifest, Plan, Run, StageDigest, StageKey, StageKind};
use agrpo_spec::{PlanError, StageSpec};
use futures::{StreamExt, TryStreamExt};

use super::progress::{READS, base_policy, corrupt, update_at};
use crate::planning::policy_notes::policy_at;
use agrpo_store::JobsError;
use agrpo_store::Store;

/// Where a worker stands in a run.
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

    /// Takes over the result of a stage, and notes a policy that it made; answers with the places of what
    /// became ready through it.
    ///
    /// That is nothing where the frontier stands behind the stage already, where the way to it is not
    /// stored, or where the run has another stage in this place: a whole plan decides then.
    pub(crate) async fn finished(
        &mut self,
        store: &Store,
        key: StageKey,
        manifest: &Manifest,
    ) -> Result<Vec<StageKey>, JobsError> {
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
        store.note_policy(self.plan.run().id(), key, manifest).await?;
        if key.kind == StageKind::Update {
            self.plan.leave_evaluations();
        }
        self.take(key, manifest)
    }

    /// Looks at all shards of an update; whether it can be computed.
    pub(crate) async fn join(
        &mut self,
        store: &Store,
        update: StageKey,
    ) -> Result<bool, JobsError> {
        if self.advance_to(store, update).await? {
            self.walk(store, |before| *before < update).await?;
        }
        Ok(self.pending(update).is_some())
    }

    /// The policy after so many iterations, if its update is noted.
    pub(crate) async fn policy_at(
        &self,
        store: &Store,
        iteration: u32,
    ) -> Result<Option<ArtifactDigest>, JobsError> {
        policy_at(store, self.plan.run(), iteration).await
    }

    /// Brings the plan to the iteration of a stage; false where it is beyond or cannot be reached.
    async fn advance_to(&mut self, store: &Store, key: StageKey) -> Result<bool, JobsError> {
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
            let base = base_policy(store, &run).await?;
            if let Some(base) = base {
                self.plan.leap_to_base(base);
            }
            return Ok(base.is_some());
        }
        let with_base = run.config().estimator.kl.get() > 0.0;
        let base = match self.plan.base() {
            None if with_base => base_policy(store, &run).await?,
            known => known,
        };
        if with_base && base.is_none() {
            return Ok(false);
        }
        let Some(at) = update_at(store, &run, wanted, base).await? else { return Ok(false) };
        self.plan = Plan::resume(run, &at, []);
        Ok(true)
    }

    /// Takes over results of pending stages, and of those that become pending through them, as far as
    /// they are wanted. Their blobs are not looked for: who reads one sees whether it is there.
    async fn walk(
        &mut self,
        store: &Store,
        wanted: impl Fn(&StageKey) -> bool,
    ) -> Result<(), JobsError> {
        let mut asked = std::collections::BTreeSet::new();
        loop {
            let new: Vec<(StageKey, StageDigest)> = self
                .plan
                .pending()
                .iter()
                .filter(|(key, _)| key.kind != StageKind::Evaluation && wanted(key))
                .filter(|(key, _)| asked.insert(**key))
                .map(|(key, spec)| (*key, spec.digest()))
                .collect();
            let reads: Vec<_> = new.iter().map(|(_, stage)| store.manifest(*stage)).collect();
            let found: Vec<Option<Manifest>> =
                futures::stream::iter(reads).buffered(READS).try_collect().await?;
            let mut any = false;
            for ((key, _), manifest) in new.into_iter().zip(found) {
                if let Some(manifest) = manifest {
                    self.take(key, &manifest)?;
                    any = true;
                }
            }
            if !any {
                return Ok(());
            }
        }
    }

    fn take(&mut self, key: StageKey, manifest: &Manifest) -> Result<Vec<StageKey>, JobsError> {
        let taken = self.plan.finished(key, |name| manifest.output(name));
        taken.map_err(|error: PlanError| corrupt(&error, manifest))
    }
}
