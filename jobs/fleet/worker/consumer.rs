//! The worker's side of the consumer: how it asks the queue for hints, when it stops, and its sign-off.
//!
//! The stage in hand does not depend on the consumer: the heartbeat renews its lease, and the executor goes on.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use agrpo_store::{JobsError, span::locked};
use futures::FutureExt;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::shared::{Worker, becomes};
use crate::coordination::consumer::consume;
use crate::coordination::queue::{Delivery, Hint, Holding, PASSED_OVER};
use crate::executor::with_retry;

impl Worker {
    /// Takes hints until the worker is stopped or idle for too long. Retries a queue that is away for as long as the
    /// options say, though Redis may answer the heartbeat; ends where Redis refuses the commands.
    pub(super) async fn consume(
        self: &Arc<Self>,
        work: mpsc::Sender<Delivery>,
        stop: watch::Receiver<bool>,
        idle_since: watch::Receiver<Option<Instant>>,
    ) -> Result<(), JobsError> {
        let ending = until(stop, self.halt.subscribe(), idle_since, self.options.exit_when_idle);
        let worker = Arc::clone(self);
        let ask = move || {
            let worker = Arc::clone(&worker);
            async move { with_retry(&*worker, || worker.next_hint()).await }.boxed()
        };
        consume(&self.queue, &self.options.name, self.options.poll, ask, work, ending).await
    }

    /// The next hint. Runs of the base that this worker holds come first, within bounds.
    async fn next_hint(&self) -> Result<Option<Hint>, JobsError> {
        let holding = Holding {
            base: *locked(&self.base),
            is_storing: self.unsettled.load(Ordering::SeqCst) > 0,
        };
        self.queue.take_near(holding, PASSED_OVER).await
    }

    /// Takes the worker off the registry and releases the reconciler's lease, so that another worker may reconcile at
    /// once.
    pub(super) async fn sign_off(&self) {
        let reconciler = self.reconciler.lock().await.take();
        if let Some(lease) = reconciler
            && let Err(error) = lease.release().await
        {
            tracing::debug!(%error, "cannot release the reconciler's lease: it expires");
        }
        self.heartbeat.sign_off().await;
    }
}

/// Resolves when the worker is to end: stopped, unable to go on, idle for too long, or its executor is gone.
async fn until(
    stop: watch::Receiver<bool>,
    halted: watch::Receiver<Option<JobsError>>,
    mut idle_since: watch::Receiver<Option<Instant>>,
    limit: Option<Duration>,
) {
    let idled = async {
        loop {
            let since = *idle_since.borrow_and_update();
            let enough = async {
                match since.zip(limit).and_then(|(since, limit)| since.checked_add(limit)) {
                    Some(end) => sleep_until(end).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = enough => return,
                changed = idle_since.changed() => if changed.is_err() { return },
            }
        }
    };
    tokio::select! {
        () = becomes(stop, |&stop| stop) => {}
        () = becomes(halted, Option::is_some) => {}
        () = idled => {}
    }
}
