//! From a computed stage to its manifest and the offer of what follows, while the next one computes.
//!
//! The lease stays kept until the result is published. Of a stage that was given back or lost nothing
//! is published.

use std::sync::Arc;
use std::time::Duration;

use agrpo_spec::{Environment, Manifest, RunId, StageKey};
use tokio::time::timeout;

use super::runs::Pending;
use super::{Worker, WorkerEvent, attempts};
use crate::error::JobsError;
use crate::failpoints::reach;
use crate::hand::{Gate, Hand};
use crate::keep;
use crate::stage::{self, Computed};

/// How often a lease that may have expired is asked for again.
const ASK: Duration = Duration::from_millis(200);

/// A stage that was computed here.
pub(super) struct Made {
    pub(super) run: RunId,
    pub(super) pending: Pending,
    pub(super) hand: Arc<Hand>,
    pub(super) computed: Computed,
    pub(super) environment: Environment,
    pub(super) begun: u32,
}

impl Worker {
    /// Stores and publishes a stage, and offers what follows.
    pub(super) async fn publish(self: Arc<Self>, made: Made) -> Result<(), JobsError> {
        let Made { run, ref pending, ref hand, .. } = made;
        let published = tokio::select! {
            published = self.store_outputs(&made) => published,
            ended = hand.ended() => return self.stand_down(run, pending, hand, ended).await,
        };
        let manifest = match published {
            Ok(manifest) if self.may_publish(hand).await => {
                reach("stage::before-manifest");
                let standing = self.patiently(|| self.store.publish(&manifest)).await;
                reach("stage::after-manifest");
                standing
            }
            Ok(_) => return self.stand_down(run, pending, hand, hand.state()).await,
            Err(error) => Err(error),
        };
        match manifest {
            Ok(manifest) => {
                self.pulse.count();
                self.accept(run, pending.key, manifest, false).await?;
                self.put_down(hand).await
            }
            Err(error) => {
                let begun = (made.begun, made.environment.started_unix_ms);
                let failed = self.failed(run, pending, hand, error.clone(), begun).await;
                if error.is_of_services() { Err(error) } else { failed }
            }
        }
    }

    async fn store_outputs(&self, made: &Made) -> Result<Manifest, JobsError> {
        let Made { pending, computed, environment, .. } = made;
        self.patiently(|| stage::put(&self.store, &pending.spec, computed, environment)).await
    }

    /// Whether the stage is still ours; waits for an answer where that is not sure.
    async fn may_publish(&self, hand: &Hand) -> bool {
        loop {
            match hand.publish(self.pulse.is_fatal()) {
                Gate::Open => return true,
                Gate::Closed => return false,
                Gate::Unsure => drop(timeout(ASK, hand.changed()).await),
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
            self.patiently(|| self.store.record_twice(run, stage)).await?;
        }
        let manifest = Arc::new(manifest);
        let view = self
            .patiently(async || match reused {
                true => self.pass(run, key, &manifest).await,
                false => self.follow(run, key, &manifest).await,
            })
            .await;
        self.tell(if reused {
            WorkerEvent::Reused { run, key, manifest }
        } else {
            WorkerEvent::Finished { run, key, manifest }
        });
        let is_done = matches!(&view, Ok(view) if view.is_done());
        // First what others wait for, then the books.
        if let Some(view) = self.readable(run, view).await? {
            reach("stage::before-enqueue");
            self.patiently(|| self.offer(run, &view)).await?;
            reach("stage::after-enqueue");
            if view.is_done() {
                self.tell(WorkerEvent::Done { run });
            }
        }
        if is_done {
            keep::at_end(&self.store, run).await;
        } else {
            keep::after(&self.store, run, key).await;
        }
        self.patiently(|| attempts::forget(&self.fleet, stage)).await?;
        self.patiently(|| self.queue.forget(stage)).await
    }
}
