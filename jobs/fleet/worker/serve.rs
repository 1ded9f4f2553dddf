//! A worker from its start to its end: the executor, the consumer and the reconciler side by side.
//!
//! Ends when it is stopped, when it is idle for too long, or when one of the three cannot go on.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use agrpo_spec::ExecuteFn;
use agrpo_store::Store;
use futures::FutureExt;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::coordinator::Deliveries;
use super::options::WorkerOptions;
use super::reconcile::reconcile;
use super::scheduler::Scheduler;
use super::shared::{FAREWELL, Worker, becomes};
use crate::Result;
use crate::coordination::{Fleet, heartbeat::Heartbeat};
use crate::events::Event;
use crate::executor::{self, first_of, joined};

/// Works until it is stopped, idle for too long, or cut off.
///
/// On stop it finishes the stage in hand, or gives it back when the grace time is over. Unavailable if
/// a lease is lost, or Redis or the store is away for longer than it is retried. **A stage that is
/// given back or cut off may still be computing on its thread when this returns: end the process
/// without waiting for it.** Dropping the future abandons the stage.
pub async fn serve(
    store: Store,
    fleet: Fleet,
    execute: ExecuteFn,
    options: WorkerOptions,
    events: mpsc::UnboundedSender<Event>,
    stop: watch::Receiver<bool>,
) -> Result<()> {
    let heartbeat = Heartbeat::start(&fleet, options.heartbeat_settings()).await?;
    let scheduler = Scheduler::new(store, fleet, options.versions.clone(), events);
    let worker = Arc::new(Worker {
        queue: scheduler.queue_of(options.numerics),
        scheduler,
        execute,
        options,
        heartbeat,
        stop: stop.clone(),
        halt: watch::Sender::new(None),
        reconciler: Mutex::default(),
        backed_off: Mutex::default(),
        base: std::sync::Mutex::default(),
        unsettled: AtomicUsize::new(0),
    });
    let (work, deliveries) = mpsc::channel(1);
    let (idle, idle_since) = watch::channel(Some(Instant::now()));
    // On a task of its own, so that neither a busy moment of the stage nor a Redis that
    // does not answer can hold up the other.
    let mut tasks = JoinSet::new();
    tasks.spawn(executor::work(Arc::clone(&worker), Deliveries { deliveries, idle }));
    let mut consumer = pin!(worker.consume(work, stop, idle_since).fuse());
    let mut reconcile = pin!(reconcile(&worker).fuse());
    let mut overdue = pin!(overdue(&worker).fuse());
    let (mut consumed, mut reconciled) = (Ok(()), Ok(()));
    let worked = loop {
        tokio::select! {
            ended = &mut consumer => consumed = ended,
            Some(worked) = tasks.join_next() => break joined(worked),
            () = &mut overdue => worker.heartbeat.release_all(),
            // The stage in hand is finished; then the worker ends.
            error = &mut reconcile => {
                worker.halt.send_replace(Some(error.clone()));
                reconciled = Err(error);
            }
        }
    };
    if timeout(FAREWELL, worker.sign_off()).await.is_err() {
        tracing::debug!("the worker did not sign off in time");
    }
    first_of(worked, first_of(consumed, reconciled))
}

/// Resolves when the stage in hand has to be given back.
async fn overdue(worker: &Worker) {
    let grace = async {
        worker.stopped().await;
        match worker.options.grace {
            Some(grace) => sleep(grace).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = grace => {}
        () = becomes(worker.options.hurry.clone(), |&hurry| hurry) => {}
    }
}
