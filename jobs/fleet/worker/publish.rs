//! From a computed stage to its manifest and the offer of what follows, while the next one computes.
//!
//! The lease is kept until the result is published. Nothing is published of a stage whose lease was released or lost.

use std::sync::Arc;
use std::time::Duration;

use agrpo_spec::{Environment, Manifest, RunId, StageKey};
use tokio::time::timeout;

use super::events::WorkerEvent;
use super::runs::Pending;
use super::shared::Worker;
use crate::coordination::attempts;
use crate::coordination::leases::{Gate, StageLease};
use crate::maintenance::retention;
use crate::stage::{self, Computed};
use agrpo_store::JobsError;
use agrpo_store::failpoints::fail_point;

/// How often a lease that may have expired is asked for again.
const ASK: Duration = Duration::from_millis(200);

/// A stage that was computed here.
pub(super) struct Made {
    pub(super) run: RunId,
    pub(super) pending: Pending,
    pub(super) lease: Arc<StageLease>,
    pub(super) computed: Computed,
    pub(super) environment: Environment,
    pub(super) begun: u32,
}

impl Worker {
    /// Stores and publishes a stage, and offers what follows.
    pub(super) async fn publish(self: Arc<Self>, made: Made) -> Result<(), JobsError> {
        let Made { run, ref pending, ref lease, .. } = made;
        let published = tokio::select! {
            published = self.store_outputs(&made) => published,
            ended = lease.ended() => return self.stand_down(run, pending, lease, ended).await,
        };
        let manifest = match published {
            Ok(manifest) if self.may_publish(lease).await => {
                fail_point("stage::before-manifest");
                let standing = self.with_retry(|| self.store.publish(&manifest)).await;
                fail_point("stage::after-manifest");
                standing
            }
            Ok(_) => return self.stand_down(run, pending, lease, lease.state()).await,
            Err(error) => Err(error),
        };
        match manifest {
            Ok(manifest) => {
                self.heartbeat.count();
                self.accept(run, pending.key, manifest, false).await?;
                self.release(lease).await
            }
            Err(error) => {
                let begun = (made.begun, made.environment.started_unix_ms);
                let failed = self.failed(run, pending, lease, error.clone(), begun).await;
                if error.is_of_services() { Err(error) } else { failed }
            }
        }
    }

    async fn store_outputs(&self, made: &Made) -> Result<Manifest, JobsError> {
        let Made { pending, computed, environment, .. } = made;
        self.with_retry(|| stage::put(&self.store, &pending.spec, computed, environment)).await
    }

    /// Whether the stage is still ours; waits for an answer where that is not sure.
    async fn may_publish(&self, lease: &StageLease) -> bool {
        loop {
            match lease.publish(self.heartbeat.is_fatal()) {
                Gate::Open => return true,
                Gate::Closed => return false,
                Gate::Unsure => drop(timeout(ASK, lease.changed()).await),
            }
        }
    }

    /// A stage's result stands: takes note, and offers what follows.
    pub(super) async fn accept(
        &self,
        run: RunId,
        key: StageKey,
        manifest: Manifest,
        reused: bool,
    ) -> Result<(), JobsError> {
        let stage = manifest.stage;
        if !reused && manifest.environment.worker != self.options.environment.worker {
            self.with_retry(|| self.store.record_twice(run, stage)).await?;
        }
        let manifest = Arc::new(manifest);
        let view = self
            .with_retry(async || match reused {
                true => self.pass(run, key, &manifest).await,
                false => self.follow(run, key, &manifest).await,
            })
            .await;
        self.emit(if reused {
            WorkerEvent::Reused { run, key, manifest }
        } else {
            WorkerEvent::Finished { run, key, manifest }
        });
        let is_done = matches!(&view, Ok(view) if view.is_done());
        // First what others wait for, then the books.
        if let Some(view) = self.readable(run, view).await? {
            fail_point("stage::before-enqueue");
            self.with_retry(|| self.offer(run, &view)).await?;
            fail_point("stage::after-enqueue");
            if view.is_done() {
                self.emit(WorkerEvent::Done { run });
            }
        }
        if is_done {
            retention::at_end(&self.store, run).await;
        } else {
            retention::after(&self.store, run, key).await;
        }
        self.with_retry(|| attempts::forget(&self.fleet, stage)).await?;
        self.with_retry(|| self.queue.forget(stage)).await
    }
}
