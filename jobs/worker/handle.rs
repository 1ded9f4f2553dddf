//! One hint, from the look into the store to the offer of what follows.
//!
//! An error from here means that the worker cannot go on; whatever is wrong with the stage itself is
//! counted, reported and, after enough attempts, recorded as the stage's failure.

use std::sync::Arc;

use agrpo_spec::RunId;

use super::enqueue::set_active;
use super::runs::{Pending, View};
use super::{Worker, WorkerEvent, attempts};
use crate::error::JobsError;
use crate::lease::{self, Lease};
use crate::queue::Hint;
use crate::stage;
use crate::store::Failure;

/// Whether an error speaks of this worker's services and rights, and of no stage or run: another
/// worker may do better.
fn is_ours(error: &JobsError) -> bool {
    matches!(error, JobsError::Unavailable(_) | JobsError::Invalid(_))
}

impl Worker {
    /// Deals with a hint. Unavailable or Invalid if the store or Redis is lost or refuses this worker.
    pub(super) async fn handle(&self, hint: Hint) -> Result<(), JobsError> {
        let run = hint.run;
        let Some(view) = self.look(run).await? else { return Ok(()) };
        let Some(pending) = view.pending.iter().find(|pending| pending.stage == hint.stage) else {
            // Somebody else did it, and may have died before offering what follows.
            return self.offer(run, &view).await;
        };
        if view.numerics != self.options.numerics || self.runs.has_failed(run, [hint.stage]).await?
        {
            return Ok(());
        }
        let key = format!("{}{}", lease::STAGE, hint.stage);
        let holder = &self.options.name;
        let Some(lease) = Lease::acquire(&self.fleet, key, holder, self.options.lease).await?
        else {
            // If the holder dies, a sweep offers the stage again.
            return Ok(());
        };
        let result = self.attempt(run, pending, &lease).await;
        let released = lease.release().await;
        if let Some(view) = result? {
            self.offer(run, &view).await?;
        }
        released
    }

    /// Where a run stands; `None` if its records are damaged, which is reported.
    pub(super) async fn look(&self, run: RunId) -> Result<Option<View>, JobsError> {
        let view = self.runs.view(run).await;
        self.readable(run, view).await
    }

    async fn readable(
        &self,
        run: RunId,
        view: Result<View, JobsError>,
    ) -> Result<Option<View>, JobsError> {
        match view {
            Ok(view) => Ok(Some(view)),
            Err(error) if is_ours(&error) => Err(error),
            Err(error) => {
                self.runs.forget(run).await;
                set_active(&self.fleet, run, false).await?;
                self.tell(WorkerEvent::Unreadable { run, error: error.to_string() });
                Ok(None)
            }
        }
    }

    /// Offers what can be computed now, or notes that nothing is left.
    pub(super) async fn offer(&self, run: RunId, view: &View) -> Result<(), JobsError> {
        if !view.is_done() {
            return self.queue_of(view.numerics).offer(run, view.stages()).await.map(drop);
        }
        self.runs.forget(run).await;
        set_active(&self.fleet, run, false).await
    }

    /// Computes a stage under its lease. Where the run stands if it is to go on.
    async fn attempt(
        &self,
        run: RunId,
        pending: &Pending,
        lease: &Lease,
    ) -> Result<Option<View>, JobsError> {
        let &Pending { key, stage, .. } = pending;
        let begun = attempts::begin(&self.fleet, stage).await?;
        if begun > self.options.attempts {
            let error = format!(
                "begun {} times, and each time its worker ended without a result; see the workers' \
                 logs, then enqueue the run again",
                begun - 1
            );
            return self.give_up(run, pending, error, begun - 1).await.map(|()| None);
        }
        self.tell(WorkerEvent::Started { run, key, stage });
        let computed = tokio::select! {
            computed = stage::compute(
                &self.store,
                &pending.spec,
                &self.execute,
                &self.options.environment,
                &self.options.clock,
            ) => computed,
            never = lease.keep() => match never {},
        };
        match computed {
            Ok((manifest, reused)) => {
                if !reused && manifest.environment.worker != self.options.environment.worker {
                    self.store.record_twice(run, stage).await?;
                }
                let manifest = Arc::new(manifest);
                let view = self.runs.finished(run, key, &manifest).await;
                self.tell(if reused {
                    WorkerEvent::Reused { run, key, manifest }
                } else {
                    WorkerEvent::Finished { run, key, manifest }
                });
                // First what others wait for, then the books.
                if let Some(view) = self.readable(run, view).await? {
                    self.offer(run, &view).await?;
                    if view.is_done() {
                        self.tell(WorkerEvent::Done { run });
                    }
                }
                attempts::forget(&self.fleet, stage).await?;
                self.queue.forget(stage).await?;
                Ok(None)
            }
            Err(error) if is_ours(&error) => {
                attempts::forgive(&self.fleet, stage).await?;
                Err(error)
            }
            Err(error) => self.failed(run, pending, &error, begun).await,
        }
    }

    /// An attempt failed: again, or never.
    async fn failed(
        &self,
        run: RunId,
        pending: &Pending,
        error: &JobsError,
        begun: u32,
    ) -> Result<Option<View>, JobsError> {
        let &Pending { key, stage, .. } = pending;
        if begun >= self.options.attempts {
            return self.give_up(run, pending, error.to_string(), begun).await.map(|()| None);
        }
        let error_text = error.to_string();
        tracing::warn!(%key, stage = %stage, error = error_text, begun, "attempt failed");
        self.tell(WorkerEvent::Failed {
            run,
            key,
            stage,
            error: error_text,
            attempts: begun,
            given_up: false,
        });
        if matches!(error, JobsError::Data(_)) {
            // An input is gone: a plan from scratch finds the stage that has to make it again.
            self.runs.forget(run).await;
        }
        self.queue.forget(stage).await?;
        self.look(run).await
    }

    async fn give_up(
        &self,
        run: RunId,
        pending: &Pending,
        error: String,
        attempts: u32,
    ) -> Result<(), JobsError> {
        let &Pending { key, stage, .. } = pending;
        let failure = Failure {
            key,
            stage,
            error: error.clone(),
            worker: self.options.name.clone(),
            attempts,
            unix_ms: (self.options.clock)(),
        };
        self.store.put_failure(run, &failure).await?;
        self.runs.note_failed(run, stage).await;
        set_active(&self.fleet, run, false).await?;
        tracing::error!(%key, stage = %stage, error, attempts, "stage given up");
        self.tell(WorkerEvent::Failed { run, key, stage, error, attempts, given_up: true });
        Ok(())
    }
}
