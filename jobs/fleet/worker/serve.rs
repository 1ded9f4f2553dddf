//! A worker from its start to its end: the executor, the consumer and the reconciler side by side.
//!
//! Ends when it is stopped, when it is idle for too long, or when one of the three cannot go on.

use std::pin::pin;
use std::sync::{Arc, Mutex};

use agrpo_spec::ExecuteFn;
use agrpo_store::{JobsError, Store};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::events::WorkerEvent;
use super::executor::first_of;
use super::options::WorkerOptions;
use super::runs::Runs;
use super::shared::{FAREWELL, Worker};
use crate::coordination::heartbeat::Heartbeat;
use crate::coordination::queue::Queue;
use crate::coordination::redis::Fleet;

/// Works until it is stopped, idle for too long, or cut off.
///
/// On stop it finishes the stage in hand, or gives it back when the grace time is over. Unavailable if
/// a lease, or Redis or the store for longer than the worker's patience, is lost. **A stage that is
/// given back or cut off may still be computing on its thread when this returns: end the process
/// without waiting for it.** Dropping the future abandons the stage.
pub async fn serve(
    store: Store,
    fleet: Fleet,
    execute: ExecuteFn,
    options: WorkerOptions,
    events: mpsc::UnboundedSender<WorkerEvent>,
    stop: watch::Receiver<bool>,
) -> Result<(), JobsError> {
    let queue = Queue::new(&fleet, options.numerics, &options.versions);
    let runs = Runs::new(store.clone(), options.versions.clone());
    let heartbeat = Heartbeat::start(&fleet, options.heartbeat_settings()).await?;
    let (backed_off, reconciler) = (Mutex::default(), Mutex::default());
    let (halt, given) = (watch::Sender::new(None), stop.clone());
    let worker = Arc::new(Worker {
        store,
        fleet,
        queue,
        execute,
        options,
        runs,
        heartbeat,
        stop: given,
        halt,
        reconciler,
        backed_off,
        events,
    });
    let (work, deliveries) = mpsc::channel(1);
    let (idle, idle_since) = watch::channel(Some(Instant::now()));
    // On a task of its own, so that neither a busy moment of the stage nor a failing exchange with
    // Redis can hold up the other.
    let mut executor = JoinSet::new();
    executor.spawn(worker.clone().work(deliveries, idle));
    let mut exchange = pin!(worker.exchange(work, stop.clone(), idle_since));
    let mut sweep = pin!(worker.reconcile());
    let mut overdue = pin!(worker.overdue());
    let (mut exchanged, mut released, mut swept) = (None, false, None);
    let worked = loop {
        tokio::select! {
            ended = &mut exchange, if exchanged.is_none() => exchanged = Some(ended),
            worked = executor.join_next() => break worked,
            () = &mut overdue, if !released => {
                released = true;
                worker.heartbeat.release_all();
            }
            // The stage in hand is finished; then the worker ends.
            error = &mut sweep, if swept.is_none() => {
                worker.halt.send_replace(Some(error.clone()));
                swept = Some(error);
            }
        }
    };
    let worked = match worked {
        Some(Ok(worked)) => worked,
        Some(Err(error)) => Err(JobsError::Internal(format!("the worker broke off: {error}"))),
        None => Ok(()),
    };
    if timeout(FAREWELL, worker.sign_off()).await.is_err() {
        tracing::debug!("not signed off in time");
    }
    let exchanged = first_of(exchanged.unwrap_or(Ok(())), swept.map_or(Ok(()), Err));
    first_of(worked, exchanged)
}

impl Worker {
    /// Resolves when the stage in hand has to be given back.
    async fn overdue(&self) {
        let grace = async {
            self.stopped().await;
            match self.options.grace {
                Some(grace) => tokio::time::sleep(grace).await,
                None => std::future::pending().await,
            }
        };
        let mut hurry = self.options.hurry.clone();
        let hurried = async {
            if hurry.wait_for(|&hurry| hurry).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = grace => {}
            () = hurried => {}
        }
    }
}
