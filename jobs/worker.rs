//! A worker of the fleet: takes a hint, asks the store, computes, publishes, offers what follows.
//!
//! Many workers share a store and a Redis. Every hint may come twice or never; what is done is
//! decided by the store alone, so a worker may die at any moment and another one goes on. Services may
//! be away for minutes; a worker that lost a lease, or Redis for longer, ends with an error and leaves
//! the restart to its supervisor. It computes one stage at a time, stores the one before meanwhile, and
//! never chooses results.

mod attempt;
pub(crate) mod attempts;
mod bench;
mod enqueue;
mod exchange;
mod handle;
mod options;
mod publish;
mod runs;
mod say;
mod sweep;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agrpo_spec::{ExecuteFn, Manifest, Numerics, RunId, StageDigest, StageKey};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

pub use enqueue::{Enqueued, enqueue};
pub(crate) use enqueue::{offer, set_active};
pub(crate) use options::LEASE;
pub use options::{LogTail, WorkerOptions};
pub(crate) use runs::View;

use crate::error::JobsError;
use crate::lease::Lease;
use crate::patience::patiently;
use crate::pulse::Pulse;
use crate::queue::Queue;
use crate::redis::Fleet;
use crate::store::Store;
use bench::first_of;
use runs::Runs;

/// How long a worker tries to sign off.
const FAREWELL: Duration = Duration::from_secs(3);

/// What a worker tells its owner.
#[derive(Clone, Debug)]
pub enum WorkerEvent {
    /// It computes a stage.
    Started {
        /// The run that asked for it.
        run: RunId,
        /// Its place in the run.
        key: StageKey,
        /// Its name.
        stage: StageDigest,
    },
    /// It computed a stage; the result is published.
    Finished {
        /// The run that asked for it.
        run: RunId,
        /// Its place in the run.
        key: StageKey,
        /// The result.
        manifest: Arc<Manifest>,
    },
    /// Somebody else's result of the stage was found instead.
    Reused {
        /// The run that asked for it.
        run: RunId,
        /// Its place in the run.
        key: StageKey,
        /// The result.
        manifest: Arc<Manifest>,
    },
    /// An attempt at a stage failed.
    Failed {
        /// The run that asked for it.
        run: RunId,
        /// Its place in the run.
        key: StageKey,
        /// Its name.
        stage: StageDigest,
        /// Why, in one line.
        error: String,
        /// How often it was begun so far.
        attempts: u32,
        /// Whether it is given up.
        given_up: bool,
    },
    /// A run cannot be looked at: its records in the store are damaged.
    Unreadable {
        /// The run.
        run: RunId,
        /// Why, in one line.
        error: String,
    },
    /// A run is left to other workers: it asks for another program or another class of numerics. Said
    /// once a run.
    Foreign {
        /// The run.
        run: RunId,
        /// Why, in one line.
        why: String,
    },
    /// A run has no stage left to compute.
    Done {
        /// The run.
        run: RunId,
    },
}

/// What the parts of a worker share.
struct Worker {
    store: Store,
    fleet: Fleet,
    queue: Queue,
    execute: ExecuteFn,
    options: WorkerOptions,
    runs: Runs,
    pulse: Pulse,
    /// Turns true when the worker is told to stop.
    stop: watch::Receiver<bool>,
    /// Why no further stage is taken though nobody told the worker to stop.
    halt: watch::Sender<Option<JobsError>>,
    sweeper: Mutex<Option<Lease>>,
    /// Stages that failed here and are better tried elsewhere, and until when.
    shunned: Mutex<BTreeMap<StageDigest, Instant>>,
    events: mpsc::UnboundedSender<WorkerEvent>,
}

impl Worker {
    /// Tells the log and the owner; one that no longer listens is no reason to stop.
    fn tell(&self, event: WorkerEvent) {
        event.note();
        self.events.send(event).ok();
    }

    /// The queue of a class, which may be another than the one this worker serves.
    fn queue_of(&self, numerics: Numerics) -> Queue {
        if numerics == self.options.numerics {
            self.queue.clone()
        } else {
            Queue::new(&self.fleet, numerics, &self.options.versions)
        }
    }

    /// Resolves when the worker is told to stop.
    async fn stopped(&self) {
        let mut stop = self.stop.clone();
        if stop.wait_for(|&stop| stop).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Rides out a service that is away, unless the worker has to end.
    async fn patiently<T, F>(&self, exchange: impl FnMut() -> F) -> Result<T, JobsError>
    where
        F: Future<Output = Result<T, JobsError>>,
    {
        patiently(self.options.patience, || !self.pulse.is_fatal(), exchange).await
    }
}

/// Works until told to stop, idle for too long, or cut off.
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
    let pulse = Pulse::start(&fleet, options.pulse()).await?;
    let (shunned, sweeper) = (Mutex::default(), Mutex::default());
    let (halt, given) = (watch::Sender::new(None), stop.clone());
    let worker = Arc::new(Worker {
        store,
        fleet,
        queue,
        execute,
        options,
        runs,
        pulse,
        stop: given,
        halt,
        sweeper,
        shunned,
        events,
    });
    let (work, deliveries) = mpsc::channel(1);
    let (idle, idle_since) = watch::channel(Some(Instant::now()));
    // On a task of its own, so that neither a busy moment of the stage nor a failing exchange with
    // Redis can hold up the other.
    let mut bench = JoinSet::new();
    bench.spawn(worker.clone().work(deliveries, idle));
    let mut exchange = pin!(worker.exchange(work, stop.clone(), idle_since));
    let mut sweep = pin!(worker.sweep());
    let mut overdue = pin!(worker.overdue());
    let (mut exchanged, mut released, mut swept) = (None, false, None);
    let worked = loop {
        tokio::select! {
            ended = &mut exchange, if exchanged.is_none() => exchanged = Some(ended),
            worked = bench.join_next() => break worked,
            () = &mut overdue, if !released => {
                released = true;
                worker.pulse.release_all();
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

/// Resolves when the worker is to end: told to, unable to go on, idle for too long, or its bench is gone.
async fn until(
    mut stop: watch::Receiver<bool>,
    mut halted: watch::Receiver<Option<JobsError>>,
    mut idle_since: watch::Receiver<Option<Instant>>,
    patience: Option<Duration>,
) {
    let stopped = async {
        if stop.wait_for(|&stop| stop).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let idled = async {
        loop {
            let since = *idle_since.borrow_and_update();
            let enough = async {
                match since.zip(patience) {
                    Some((since, patience)) => sleep_until(since + patience).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = enough => return,
                changed = idle_since.changed() => if changed.is_err() { return },
            }
        }
    };
    let halted = async {
        if halted.wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = stopped => {}
        () = halted => {}
        () = idled => {}
    }
}

#[cfg(test)]
mod tests;
