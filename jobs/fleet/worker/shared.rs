//! What the parts of a worker share: its services, what it knows of runs, and how it is stopped.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use agrpo_spec::{ExecuteFn, Numerics, StageDigest};
use agrpo_store::retry::with_retry;
use agrpo_store::{JobsError, Store};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::events::WorkerEvent;
use super::options::WorkerOptions;
use super::runs::Runs;
use crate::coordination::heartbeat::Heartbeat;
use crate::coordination::leases::Lease;
use crate::coordination::queue::Queue;
use crate::coordination::redis::Fleet;

/// How long a worker tries to sign off.
pub(super) const FAREWELL: Duration = Duration::from_secs(3);

/// What the parts of a worker share.
pub(super) struct Worker {
    pub(super) store: Store,
    pub(super) fleet: Fleet,
    pub(super) queue: Queue,
    pub(super) execute: ExecuteFn,
    pub(super) options: WorkerOptions,
    pub(super) runs: Runs,
    pub(super) heartbeat: Heartbeat,
    /// Turns true when the worker is stopped.
    pub(super) stop: watch::Receiver<bool>,
    /// Why no further stage is taken though the worker was not stopped.
    pub(super) halt: watch::Sender<Option<JobsError>>,
    pub(super) reconciler: Mutex<Option<Lease>>,
    /// Stages that failed here and are better tried elsewhere, and until when.
    pub(super) backed_off: Mutex<BTreeMap<StageDigest, Instant>>,
    pub(super) events: mpsc::UnboundedSender<WorkerEvent>,
}

impl Worker {
    /// Tells the log and the owner; one that no longer listens is no reason to stop.
    pub(super) fn emit(&self, event: WorkerEvent) {
        event.note();
        self.events.send(event).ok();
    }

    /// The queue of a class, which may be another than the one this worker serves.
    pub(super) fn queue_of(&self, numerics: Numerics) -> Queue {
        if numerics == self.options.numerics {
            self.queue.clone()
        } else {
            Queue::new(&self.fleet, numerics, &self.options.versions)
        }
    }

    /// Resolves when the worker is stopped.
    pub(super) async fn stopped(&self) {
        let mut stop = self.stop.clone();
        if stop.wait_for(|&stop| stop).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Rides out a service that is away, unless the worker has to end.
    pub(super) async fn with_retry<T, F>(&self, exchange: impl FnMut() -> F) -> Result<T, JobsError>
    where
        F: Future<Output = Result<T, JobsError>>,
    {
        with_retry(self.options.patience, || !self.heartbeat.is_fatal(), exchange).await
    }
}
