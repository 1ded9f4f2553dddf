//! The runs that a worker follows: a frontier for each stage's successors, a whole plan for the reconciler.
//!
//! Both can be dropped at any time and are rebuilt from the store. Nothing here talks to Redis.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use agrpo_spec::{
    ArtifactDigest, Base, Manifest, Numerics, Plan, Run, RunId, StageDigest, StageKey, StageKind,
    StageSpec,
};
use agrpo_store::{JobsError, Store, Versions};
use tokio::sync::{Mutex, OnceCell};
use tokio::time::Instant;

use crate::Result;
use crate::planning::frontier::Frontier;
use crate::planning::policy_notes::policy_at;
use crate::planning::progress::Progress;
use crate::stage::Pending;

/// How long a run's versions are taken for what they were.
const FRESH: Duration = Duration::from_secs(10);

/// Where a run stands, or the part of it that a worker has just seen.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// In the order in which they are best begun.
    pub(crate) pending: Vec<Pending>,
    /// The class of all its stages.
    pub(crate) numerics: Numerics,
    /// The checkpoint that the run starts from, if it does.
    pub(crate) base: Option<ArtifactDigest>,
    pub(crate) is_done: bool,
}

/// The checkpoint whose weights a run never changes; none where all weights are trained.
fn base_of(run: &Run) -> Option<ArtifactDigest> {
    match run.base() {
        Base::Checkpoint(checkpoint) if run.config().lora.is_some() => Some(checkpoint.folder),
        Base::Checkpoint(_) | Base::Scratch(..) => None,
    }
}

impl View {
    pub(crate) fn of(progress: &Progress) -> Self {
        let plan = &progress.plan;
        Self {
            pending: plan.pending().iter().map(|(key, spec)| Pending::new(*key, spec)).collect(),
            numerics: plan.run().config().numerics,
            base: base_of(plan.run()),
            is_done: plan.is_done(),
        }
    }

    /// What became ready at a frontier.
    fn ahead(run: &Run, frontier: &Frontier, ready: impl IntoIterator<Item = StageKey>) -> Self {
        let pending = |key| Some(Pending::new(key, frontier.pending(key)?));
        let pending = ready.into_iter().filter_map(pending).collect();
        let (numerics, base) = (run.config().numerics, base_of(run));
        Self { pending, numerics, base, is_done: false }
    }

    pub(crate) fn stages(&self) -> impl Iterator<Item = StageDigest> {
        self.pending.iter().map(|pending| pending.stage)
    }
}

/// One run, as far as it was opened.
#[derive(Debug, Default)]
struct Slot {
    opened: OnceCell<(Run, Mutex<Frontier>)>,
    whole: Mutex<Option<Progress>>,
    /// Stages that are known to have failed for good; none before they were asked for.
    failed: Mutex<Option<BTreeSet<StageDigest>>>,
    /// When the run was last found to be one for this program.
    compatible: Mutex<Option<Instant>>,
}

/// All runs that this worker has looked at and that are not done.
#[derive(Debug)]
pub(crate) struct Runs {
    store: Store,
    /// What this worker computes.
    pub(super) own: Versions,
    slots: Mutex<BTreeMap<RunId, Arc<Slot>>>,
    reported: Mutex<BTreeSet<RunId>>,
}

impl Runs {
    pub(crate) fn new(store: Store, own: Versions) -> Self {
        Self { store, own, slots: Mutex::default(), reported: Mutex::default() }
    }

    /// Where the run stands after a look at all that is pending.
    pub(crate) async fn view(&self, run: RunId) -> Result<View> {
        let slot = self.slot(run).await;
        let mut whole = slot.whole.lock().await;
        let mut progress = match whole.take() {
            Some(progress) => progress,
            None => {
                *slot.failed.lock().await = Some(self.read_failures(run).await?);
                Progress::open(&self.store, self.open(&slot, run).await?.0.clone()).await?
            }
        };
        progress.leap(&self.store).await?;
        progress.catch_up(&self.store).await?;
        let view = View::of(&progress);
        if view.is_done {
            progress.complete_index(&self.store).await?;
        }
        *whole = Some(progress);
        Ok(view)
    }

    /// Where a stage stands in its run. For an evaluation its spec does not say, so the queue's note is used.
    /// `None` where the run has none such, or where only a whole plan can tell.
    pub(crate) async fn place(
        &self,
        run: RunId,
        spec: &StageSpec,
        noted: Option<StageKey>,
    ) -> Result<Option<StageKey>> {
        let slot = self.slot(run).await;
        let (config, frontier) = self.open(&slot, run).await?;
        if spec.kind() != StageKind::Evaluation {
            return Ok(Plan::place(config, spec));
        }
        let Some(noted) = noted.filter(|noted| noted.kind == StageKind::Evaluation) else {
            return Ok(None);
        };
        let frontier = frontier.lock().await;
        if frontier.pending(noted) == Some(spec) {
            return Ok(Some(noted));
        }
        let policy = policy_at(&self.store, config, noted.iteration).await?;
        let own = policy.and_then(|policy| Plan::evaluation_of(config, noted, policy));
        Ok((own.as_ref() == Some(spec)).then_some(noted))
    }

    /// Notes a result in the run's index; answers with what became ready through it.
    pub(crate) async fn finished(
        &self,
        run: RunId,
        key: StageKey,
        manifest: &Manifest,
    ) -> Result<View> {
        let slot = self.slot(run).await;
        let (config, frontier) = self.open(&slot, run).await?;
        self.store.records.record_stage(run, key, manifest.stage).await?;
        if key.kind == StageKind::Evaluation {
            let last = Plan::last_update(config, config.config().training.iterations);
            if self.store.records.recorded_policy(run, last).await?.is_some() {
                // It may have been the last of all.
                return self.view(run).await;
            }
        }
        let mut frontier = frontier.lock().await;
        let ready = frontier.finished(&self.store, key, manifest).await?;
        Ok(View::ahead(config, &frontier, ready))
    }

    /// The checkpoint whose weights a run never changes, if it has one.
    pub(crate) async fn base(&self, run: RunId) -> Result<Option<ArtifactDigest>> {
        let slot = self.slot(run).await;
        Ok(base_of(&self.open(&slot, run).await?.0))
    }

    /// The update that a published gradient belongs to, or published rewards where updates are fused, if other shards
    /// take part in it, and their number.
    pub(crate) async fn join_of(
        &self,
        run: RunId,
        key: StageKey,
    ) -> Result<Option<(StageKey, u32)>> {
        let slot = self.slot(run).await;
        let config = &self.open(&slot, run).await?.0;
        let shards = config.config().rollout.shards;
        Ok(Plan::joins(config, key).filter(|_| shards > 1).map(|update| (update, shards)))
    }

    /// What can be computed now that all shards of an update are counted.
    pub(crate) async fn joined(&self, run: RunId, update: StageKey) -> Result<View> {
        let slot = self.slot(run).await;
        let (config, frontier) = self.open(&slot, run).await?;
        let mut frontier = frontier.lock().await;
        let ready = frontier.join(&self.store, update).await?.then_some(update);
        Ok(View::ahead(config, &frontier, ready))
    }

    async fn open<'a>(&self, slot: &'a Slot, run: RunId) -> Result<&'a (Run, Mutex<Frontier>)> {
        let open = async || match self.store.records.run(run).await {
            Ok(record) => Ok((record.clone(), Mutex::new(Frontier::new(record)))),
            Err(JobsError::Data(_)) if !self.store.records.has_run_record(run).await? => {
                // Most likely the worker was started on another store than the run's, or the run was forgotten.
                Err(JobsError::data(format!(
                    "the store of this worker, {}, does not hold run {run}, which is queued in its Redis: unless \
                     the run was forgotten, start the worker with its store in AGRPO_STORE or --store",
                    self.store.url()
                )))
            }
            Err(error) => Err(error),
        };
        slot.opened.get_or_try_init(open).await
    }

    /// Whether one of these stages failed for good, as far as the store says now.
    pub(crate) async fn has_failed(
        &self,
        run: RunId,
        stages: impl IntoIterator<Item = StageDigest>,
    ) -> Result<bool> {
        let slot = self.slot(run).await;
        let mut failed = slot.failed.lock().await;
        let stages: BTreeSet<_> = stages.into_iter().collect();
        if failed.as_ref().is_some_and(|failed| failed.is_disjoint(&stages)) {
            return Ok(false);
        }
        // Not asked so far, or a person may have asked for new attempts since.
        let now = failed.insert(self.read_failures(run).await?);
        Ok(!now.is_disjoint(&stages))
    }

    /// Notes that a stage failed for good.
    pub(crate) async fn note_failed(&self, run: RunId, stage: StageDigest) {
        let slot = self.slot(run).await;
        slot.failed.lock().await.get_or_insert_default().insert(stage);
    }

    /// Why another program has to compute the run, if so.
    pub(crate) async fn incompatible(&self, run: RunId) -> Result<Option<String>> {
        let slot = self.slot(run).await;
        let mut compatible = slot.compatible.lock().await;
        if compatible.is_some_and(|since| since.elapsed() < FRESH) {
            return Ok(None);
        }
        // Nothing is pinned for a run that has no record.
        self.open(&slot, run).await?;
        let why = self.own.misses(&self.store.records.versions(run).await?);
        *compatible = why.is_none().then(Instant::now);
        Ok(why)
    }

    /// Whether an incompatible run is reported for the first time.
    pub(crate) async fn is_first_report(&self, run: RunId) -> bool {
        self.reported.lock().await.insert(run)
    }

    /// Drops the plans: the run is done, or has to be opened anew.
    pub(crate) async fn forget(&self, run: RunId) {
        self.slots.lock().await.remove(&run);
    }

    async fn slot(&self, run: RunId) -> Arc<Slot> {
        self.slots.lock().await.entry(run).or_default().clone()
    }

    async fn read_failures(&self, run: RunId) -> Result<BTreeSet<StageDigest>> {
        let failures = self.store.records.failures(run).await?;
        Ok(failures.into_iter().map(|failure| failure.stage).collect())
    }
}
