//! The runs that a worker walks along, each with its plan caught up with the store.
//!
//! A plan is opened once and then follows the results; it can be forgotten at any time and is opened
//! again from the store. Nothing here talks to Redis.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use agrpo_spec::{Manifest, Numerics, RunId, StageDigest, StageKey, StageSpec};
use tokio::sync::Mutex;

use crate::error::JobsError;
use crate::progress::Progress;
use crate::store::Store;

/// A stage that can be computed now.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) key: StageKey,
    pub(crate) stage: StageDigest,
    pub(crate) spec: StageSpec,
}

/// Where a run stands.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// In the order in which they are best begun; empty where the run is done.
    pub(crate) pending: Vec<Pending>,
    /// The class of all its stages.
    pub(crate) numerics: Numerics,
}

impl View {
    pub(crate) fn of(progress: &Progress) -> Self {
        let plan = progress.plan();
        let pending = |(&key, spec): (&StageKey, &StageSpec)| Pending {
            key,
            stage: spec.digest(),
            spec: spec.clone(),
        };
        Self {
            pending: plan.pending().iter().map(pending).collect(),
            numerics: plan.run().config().numerics,
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.pending.is_empty()
    }

    pub(crate) fn stages(&self) -> impl Iterator<Item = StageDigest> {
        self.pending.iter().map(|pending| pending.stage)
    }
}

/// One run: its plan, once opened, and the stages that are known to have failed for good.
#[derive(Debug, Default)]
struct Open {
    progress: Option<Progress>,
    failed: BTreeSet<StageDigest>,
}

/// All runs that this worker has looked at and that are not done.
#[derive(Debug)]
pub(crate) struct Runs {
    store: Store,
    open: Mutex<BTreeMap<RunId, Arc<Mutex<Open>>>>,
}

impl Runs {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, open: Mutex::default() }
    }

    /// Where the run stands after a look at the store.
    pub(crate) async fn view(&self, run: RunId) -> Result<View, JobsError> {
        let slot = self.slot(run).await;
        let mut open = slot.lock().await;
        let progress = match open.progress.take() {
            Some(progress) => open.progress.insert(progress),
            None => {
                let progress = Progress::open(&self.store, self.store.run(run).await?).await?;
                open.failed = self.read_failures(run).await?;
                open.progress.insert(progress)
            }
        };
        progress.catch_up(&self.store).await?;
        Ok(View::of(progress))
    }

    /// Notes a result that this worker published; where the run stands then.
    ///
    /// Looks at the store as well: when two workers publish the last two gradients at once, each
    /// knows only its own, and the later of them has to see that the update became ready.
    pub(crate) async fn finished(
        &self,
        run: RunId,
        key: StageKey,
        manifest: &Manifest,
    ) -> Result<View, JobsError> {
        let slot = self.slot(run).await;
        let mut open = slot.lock().await;
        if let Some(progress) = &mut open.progress
            && progress.plan().pending().contains_key(&key)
        {
            progress.finished(key, manifest)?;
            self.store.record_stage(run, key, manifest.stage).await?;
        }
        drop(open);
        self.view(run).await
    }

    /// Whether one of these stages failed for good, as far as the store says now.
    pub(crate) async fn has_failed(
        &self,
        run: RunId,
        stages: impl IntoIterator<Item = StageDigest>,
    ) -> Result<bool, JobsError> {
        let slot = self.slot(run).await;
        let mut open = slot.lock().await;
        let stages: BTreeSet<_> = stages.into_iter().collect();
        if open.failed.is_disjoint(&stages) {
            return Ok(false);
        }
        // Somebody may have asked for new attempts since.
        open.failed = self.read_failures(run).await?;
        Ok(!open.failed.is_disjoint(&stages))
    }

    /// Notes that a stage failed for good.
    pub(crate) async fn note_failed(&self, run: RunId, stage: StageDigest) {
        self.slot(run).await.lock().await.failed.insert(stage);
    }

    /// Drops the plan: the run is done, or has to be opened anew.
    pub(crate) async fn forget(&self, run: RunId) {
        self.open.lock().await.remove(&run);
    }

    async fn slot(&self, run: RunId) -> Arc<Mutex<Open>> {
        self.open.lock().await.entry(run).or_default().clone()
    }

    async fn read_failures(&self, run: RunId) -> Result<BTreeSet<StageDigest>, JobsError> {
        let failures = self.store.failures(run).await?;
        Ok(failures.into_iter().map(|failure| failure.stage).collect())
    }
}
