//! What the executor, the consumer and the reconciler of a worker share: its services, its pace, and how it is stopped.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use agrpo_spec::{ArtifactDigest, ExecuteFn, StageDigest};
use agrpo_store::JobsError;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use super::options::WorkerOptions;
use super::scheduler::Scheduler;
use crate::coordination::heartbeat::Heartbeat;
use crate::coordination::leases::Lease;
use crate::coordination::queue::Queue;

/// How long a worker tries to sign off.
pub(super) const FAREWELL: Duration = Duration::from_secs(3);

pub(super) struct Worker {
    pub(super) scheduler: Scheduler,
    /// The queue of its class.
    pub(super) queue: Queue,
    pub(super) execute: ExecuteFn,
    pub(super) options: WorkerOptions,
    pub(super) heartbeat: Heartbeat,
    /// Turns true when the worker is stopped.
    pub(super) stop: watch::Receiver<bool>,
    /// Why no further stage is taken though the worker was not stopped.
    pub(super) halt: watch::Sender<Option<JobsError>>,
    /// The lease of the reconciler, while this worker holds it.
    pub(super) reconciler: Mutex<Option<Lease>>,
    /// Stages that failed here and are better tried elsewhere, and until when.
    pub(super) backed_off: Mutex<BTreeMap<StageDigest, Instant>>,
    /// The checkpoint whose weights the last stage with a policy has read; the process keeps them.
    pub(super) base: std::sync::Mutex<Option<ArtifactDigest>>,
    /// Stages that were begun and whose results, or failures, are not dealt with yet.
    pub(super) unsettled: AtomicUsize,
}

impl Worker {
    /// Resolves when the worker is stopped.
    pub(super) async fn stopped(&self) {
        becomes(self.stop.clone(), |&stop| stop).await;
    }
}

/// Resolves when a value is as it is wanted; never, if its owner is gone.
pub(super) async fn becomes<T>(mut value: watch::Receiver<T>, wanted: impl FnMut(&T) -> bool) {
    if value.wait_for(wanted).await.is_err() {
        std::future::pending::<()>().await;
    }
}
