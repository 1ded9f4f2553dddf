//! A worker of the fleet: takes a hint, asks the store, computes, publishes, offers what follows.
//!
//! Many workers share a store and a Redis. Every hint may come twice or never; what is done is
//! decided by the store alone, so a worker may die at any moment and another one goes on. A worker
//! that loses Redis ends with an error and leaves the restart to its supervisor. It computes one
//! stage at a time and never chooses results.

mod attempts;
mod enqueue;
mod handle;
mod runs;
mod sweep;

use std::sync::Arc;
use std::time::Duration;

use agrpo_spec::{Environment, ExecuteFn, Manifest, Numerics, RunId, StageDigest, StageKey};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

pub use enqueue::{Enqueued, enqueue};

use crate::clock::Clock;
use crate::error::JobsError;
use crate::queue::{Delivery, Pace, Queue};
use crate::redis::Fleet;
use crate::store::Store;
use runs::Runs;

/// The Redis set of runs that are not done; a hint, like everything in Redis.
const ACTIVE: &str = "agrpo:active";

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

/// How a worker behaves; none of it changes a result.
#[derive(Clone)]
pub struct WorkerOptions {
    /// The class of numerics that this process honours; it takes stages of no other.
    pub numerics: Numerics,
    /// Unique to this start, say host, process and time: a name that was used before is refused.
    pub name: String,
    /// What manifests say about this machine.
    pub environment: Environment,
    /// The time of day.
    pub clock: Clock,
    /// Ends the worker after this long without work; `None` waits for ever.
    pub exit_when_idle: Option<Duration>,
    /// From one look for work to the next; half of it is an idle worker's mean delay.
    pub poll: Duration,
    /// From one sign of life to the next, whole seconds.
    pub heartbeat: Duration,
    /// Signs of life that may be missing: times `heartbeat`, both the longest stall of Redis that a
    /// worker survives and the time until a dead worker's stage is given to another.
    pub missed_heartbeats: u32,
    /// Until the lease of a dead worker's stage expires; less than the time to redelivery.
    pub lease: Duration,
    /// From one sweep for lost hints to the next.
    pub sweep: Duration,
    /// From one look through the store for runs that Redis does not know to the next.
    pub survey: Duration,
    /// Starts of a stage before it is given up.
    pub attempts: u32,
}

impl WorkerOptions {
    /// The usual pace.
    pub fn new(numerics: Numerics, name: String, environment: Environment, clock: Clock) -> Self {
        Self {
            numerics,
            name,
            environment,
            clock,
            exit_when_idle: None,
            poll: Duration::from_millis(100),
            heartbeat: Duration::from_secs(2),
            missed_heartbeats: 5,
            lease: Duration::from_secs(8),
            sweep: Duration::from_secs(2),
            survey: Duration::from_secs(30),
            attempts: 3,
        }
    }
}

impl std::fmt::Debug for WorkerOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerOptions")
            .field("numerics", &self.numerics)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What the parts of a worker share.
struct Worker {
    store: Store,
    fleet: Fleet,
    queue: Queue,
    execute: ExecuteFn,
    options: WorkerOptions,
    runs: Runs,
    events: mpsc::UnboundedSender<WorkerEvent>,
}

impl Worker {
    /// Tells the owner; one that no longer listens is no reason to stop.
    fn tell(&self, event: WorkerEvent) {
        self.events.send(event).ok();
    }

    /// The queue of a class, which may be another than the one this worker serves.
    fn queue_of(&self, numerics: Numerics) -> Queue {
        if numerics == self.options.numerics {
            self.queue.clone()
        } else {
            Queue::new(&self.fleet, numerics)
        }
    }
}

/// Works until told to stop, idle for too long, or cut off.
///
/// On stop it finishes the stage in hand. Unavailable if Redis or the store is lost: the stage in
/// hand is still finished and published if it can be. Dropping the future abandons the stage.
pub async fn serve(
    store: Store,
    fleet: Fleet,
    execute: ExecuteFn,
    options: WorkerOptions,
    events: mpsc::UnboundedSender<WorkerEvent>,
    stop: watch::Receiver<bool>,
) -> Result<(), JobsError> {
    let queue = Queue::new(&fleet, options.numerics);
    let runs = Runs::new(store.clone());
    let worker = Arc::new(Worker { store, fleet, queue, execute, options, runs, events });
    let (work, deliveries) = mpsc::channel(1);
    let (idle, idle_since) = watch::channel(Some(Instant::now()));
    // On a task of its own, so that neither a busy moment of the stage nor a failing exchange with
    // Redis can hold up the other.
    let mut bench = JoinSet::new();
    bench.spawn(worker.clone().work(deliveries, idle));
    let options = &worker.options;
    let pace = Pace {
        poll: options.poll,
        heartbeat: options.heartbeat,
        missed_heartbeats: options.missed_heartbeats as usize,
    };
    let ending = until(stop, idle_since, options.exit_when_idle);
    let consumed = tokio::select! {
        consumed = worker.queue.consume(pace, &options.name, work, ending) => consumed,
        never = worker.sweep() => match never {},
    };
    let worked = match bench.join_next().await {
        Some(Ok(worked)) => worked,
        Some(Err(error)) => Err(JobsError::Internal(format!("the worker broke off: {error}"))),
        None => Ok(()),
    };
    // Redis may be gone, which is then what `consumed` says.
    if let Ok(Err(error)) = timeout(FAREWELL, worker.queue.leave(&options.name)).await {
        tracing::debug!(%error, "not signed off");
    }
    worked.and(consumed)
}

impl Worker {
    /// Deals with hints one by one until there are no more, or until one cannot be dealt with.
    async fn work(
        self: Arc<Self>,
        mut deliveries: mpsc::Receiver<Delivery>,
        idle: watch::Sender<Option<Instant>>,
    ) -> Result<(), JobsError> {
        while let Some(Delivery { hint, done }) = deliveries.recv().await {
            idle.send_replace(None);
            self.handle(hint).await?;
            idle.send_replace(Some(Instant::now()));
            done.send(()).ok();
        }
        Ok(())
    }
}

/// Resolves when the worker is to end: told to, idle for too long, or its bench is gone.
async fn until(
    mut stop: watch::Receiver<bool>,
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
    tokio::select! {
        () = stopped => {}
        () = idled => {}
    }
}

#[cfg(test)]
mod tests;
