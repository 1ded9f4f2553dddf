//! One hint, from the look into the store to the offer of what follows.
//!
//! An error returned from here means that the worker cannot go on. `attempt.rs` and `publish.rs` compute and publish.

use std::sync::Arc;

use agrpo_spec::{Manifest, RunId, StageDigest, StageKey, StageKind, StageSpec};
use tracing::Instrument;

use super::enqueue::offer;
use super::events::WorkerEvent;
use super::executor::Publisher;
use super::runs::{Pending, View};
use super::shared::Worker;
use crate::coordination::leases::StageLease;
use crate::coordination::queue::Hint;
use crate::coordination::runs::set_active;
use crate::span;
use agrpo_store::JobsError;

impl Worker {
    /// Deals with a hint; false where the worker was stopped before it began, and the hint is for
    /// another one. Unavailable or Invalid if the store or Redis is lost or refuses this worker.
    pub(super) async fn handle(
        self: &Arc<Self>,
        hint: Hint,
        publisher: &mut Publisher,
    ) -> Result<bool, JobsError> {
        // Whatever is waited for until then, a worker that is stopped need not begin.
        let begun = tokio::select! {
            biased;
            begun = self.begin(hint) => begun?,
            () = self.stopped() => return Ok(false),
        };
        // If another holds it and dies, a sweep offers the stage again.
        let Some((pending, lease)) = begun else { return Ok(true) };
        let span = span::of_stage(hint.run, pending.key, pending.stage);
        self.attempt(hint.run, &pending, &lease, publisher).instrument(span).await.map(|()| true)
    }

    /// The stage of a hint with its lease, if it is to be computed here.
    async fn begin(&self, hint: Hint) -> Result<Option<(Pending, Arc<StageLease>)>, JobsError> {
        let Some(pending) = self.with_retry(|| self.taken(hint)).await? else { return Ok(None) };
        let lease = self.take(hint.run, hint.stage).await?;
        Ok(lease.map(|lease| (pending, lease)))
    }

    /// The stage of a hint that was taken, if it is to be computed here.
    async fn taken(&self, hint: Hint) -> Result<Option<Pending>, JobsError> {
        let Hint { run, stage } = hint;
        let noted = self.queue.take(hint).await?;
        let pending = self.pending(hint, noted).await;
        let Some(Some(pending)) = self.readable(run, pending).await? else { return Ok(None) };
        if noted.is_none() && self.passes(run, &pending).await? {
            return Ok(None);
        }
        let failed = self.runs.has_failed(run, [stage]).await;
        Ok(self.readable(run, failed).await?.is_some_and(|failed| !failed).then_some(pending))
    }

    /// What a hint stands for: its spec from the store, its place from the run. `None` where this worker
    /// leaves it: to others, or to what the store says of the whole run.
    async fn pending(
        &self,
        hint: Hint,
        noted: Option<StageKey>,
    ) -> Result<Option<Pending>, JobsError> {
        let Hint { run, stage } = hint;
        if let Some(why) = self.runs.incompatible(run).await? {
            self.leave(run, why).await;
            return Ok(None);
        }
        let spec = match self.store.spec(stage).await {
            Ok(spec) => spec,
            Err(error @ JobsError::Data(_)) => {
                tracing::warn!(run = run.short(), %error);
                return self.replan(run, stage).await.map(|()| None);
            }
            Err(error) => return Err(error),
        };
        if let Some(why) = self.misfit(&spec) {
            self.leave(run, why).await;
            return Ok(None);
        }
        match self.runs.place(run, &spec, noted).await? {
            Some(key) => Ok(Some(Pending { key, stage, spec })),
            None => {
                let view = self.runs.view(run).await?;
                let pending = view.pending.iter().find(|pending| pending.stage == stage).cloned();
                if pending.is_none() {
                    self.offer(run, &view).await?;
                }
                Ok(pending)
            }
        }
    }

    /// Why a stage is for other workers, if it is.
    fn misfit(&self, spec: &StageSpec) -> Option<String> {
        let (kind, own) = (spec.kind(), self.options.numerics);
        if spec.version() != kind.version() {
            return Some(format!(
                "it asks for version {} of {kind} stages, this program has version {}",
                spec.version(),
                kind.version()
            ));
        }
        let numerics = spec.numerics();
        (numerics != own)
            .then(|| format!("it asks for the numerics class {numerics}, this worker serves {own}"))
    }

    /// Leaves a run to other workers and says so once. A hint of it came from before its versions were
    /// changed, or by mistake: it is dropped, since the one who put it back might be the only one to take
    /// it, and a sweep of the right kind of worker offers the stage again.
    pub(super) async fn leave(&self, run: RunId, why: String) {
        if self.runs.tells_first(run).await {
            self.emit(WorkerEvent::Incompatible { run, why });
        }
    }

    /// A stage's spec is lost: planning the run gives it again.
    async fn replan(&self, run: RunId, stage: StageDigest) -> Result<(), JobsError> {
        self.store.invalidate_spec(stage);
        self.queue.forget(stage).await?;
        let view = self.runs.view(run).await?;
        self.offer(run, &view).await
    }

    /// Deals with a hint that came before, if its stage is done. Its worker may have died at any step, so
    /// this is asked before a start is counted; for other hints it is asked once they are leased.
    async fn passes(&self, run: RunId, pending: &Pending) -> Result<bool, JobsError> {
        let found = self.store.settled_manifest(run, pending.stage).await;
        let manifest = match self.readable(run, found).await? {
            Some(Some(manifest)) => manifest,
            found => return Ok(found.is_none()),
        };
        let view = self.pass(run, pending.key, &manifest).await;
        if let Some(view) = self.readable(run, view).await? {
            self.offer(run, &view).await?;
        }
        Ok(true)
    }

    /// What became ready through a result that another worker published: nothing, at no cost, where it is
    /// noted in the run's index, since its writer offered that or left it to the next sweep.
    pub(super) async fn pass(
        &self,
        run: RunId,
        key: StageKey,
        manifest: &Manifest,
    ) -> Result<View, JobsError> {
        if self.store.is_recorded(run, key, manifest.stage).await? {
            let numerics = manifest.spec.numerics();
            return Ok(View { pending: vec![], numerics, done: false });
        }
        self.follow(run, key, manifest).await
    }

    /// What became ready through a published result; notes it in the run's index.
    ///
    /// The gradients of an update are counted, so that only the worker of the last one looks at all of
    /// them, and no two workers that publish at once both miss it. Where the count is lost, or its
    /// worker dies before it offers the update, a sweep does.
    pub(super) async fn follow(
        &self,
        run: RunId,
        key: StageKey,
        manifest: &Manifest,
    ) -> Result<View, JobsError> {
        let view = self.runs.finished(run, key, manifest).await?;
        if key.kind == StageKind::Update {
            self.queue_of(view.numerics).joined(run, key).await?;
        }
        if !view.pending.is_empty() || view.is_done() {
            return Ok(view);
        }
        let Some((update, shards)) = self.runs.join_of(run, key).await? else { return Ok(view) };
        let queue = self.queue_of(view.numerics);
        if queue.join(run, update, key.shard).await? < shards {
            return Ok(view);
        }
        self.runs.joined(run, update).await
    }

    /// Where a run stands; `None` if its records are damaged or another version's, which is reported.
    pub(super) async fn look(&self, run: RunId) -> Result<Option<View>, JobsError> {
        let view = self.runs.view(run).await;
        self.readable(run, view).await
    }

    pub(super) async fn readable<T>(
        &self,
        run: RunId,
        found: Result<T, JobsError>,
    ) -> Result<Option<T>, JobsError> {
        match found {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.is_of_services() => Err(error),
            Err(JobsError::Incompatible(why)) => {
                self.runs.forget(run).await;
                self.leave(run, why).await;
                Ok(None)
            }
            Err(error) => self.unreadable(run, &error).await.map(|()| None),
        }
    }

    /// A run's records are damaged; a survey looks at it again.
    pub(super) async fn unreadable(&self, run: RunId, error: &JobsError) -> Result<(), JobsError> {
        self.runs.forget(run).await;
        set_active(&self.fleet, run, false).await?;
        self.emit(WorkerEvent::Unreadable { run, error: error.to_string() });
        Ok(())
    }

    /// Offers what can be computed now, or notes that nothing is left.
    pub(super) async fn offer(&self, run: RunId, view: &View) -> Result<(), JobsError> {
        let queue = self.queue_of(view.numerics);
        if !view.is_done() {
            return offer(&self.store, &queue, run, &view.pending).await.map(drop);
        }
        self.runs.forget(run).await;
        queue.withdraw(run).await?;
        set_active(&self.fleet, run, false).await.map(drop)
    }
}
