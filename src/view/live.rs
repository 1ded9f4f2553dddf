//! The state behind live pages: every run's status, the histories of the runs that were opened, and the workers.
//!
//! Refreshed in the background while a page is connected. An unreachable service is asked again. Writes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::{sync::Arc, time::Duration};

use agrpo_fleet::status::{Looks, RunStatus};
use agrpo_fleet::{Fleet, WorkerInfo, workers};
use agrpo_spec::{Numerics, RunId};
use agrpo_store::{JobsError, Result, Store};
use futures::future::BoxFuture;
use tokio::sync::{Mutex, RwLock, watch};
use tokio::time::{Instant, sleep};

use crate::history::{RunHistory, update};

/// Connects to Redis; called again after each failure.
pub type Connect = Arc<dyn Fn() -> BoxFuture<'static, Result<Fleet>> + Send + Sync>;

/// The workers and the queue.
#[derive(Clone, Debug, Default)]
pub struct Crew {
    /// The connected workers.
    pub workers: Vec<WorkerInfo>,
    /// Waiting stages, by numerics class.
    pub waiting: Vec<(Numerics, u64)>,
    /// Why Redis could not be read.
    pub error: Option<String>,
}

/// All that pages are rendered from.
pub struct Hub {
    /// The store.
    pub store: Store,
    connect: Option<Connect>,
    fleet: Mutex<Option<Fleet>>,
    looks: Mutex<Looks>,
    runs: RwLock<Result<Vec<RunStatus>, String>>,
    crew: RwLock<Crew>,
    histories: RwLock<BTreeMap<RunId, Arc<RwLock<RunHistory>>>>,
    changed: watch::Sender<u64>,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Hub {
    /// Empty. Without `connect` pages show no fleet.
    pub fn new(store: Store, connect: Option<Connect>) -> Self {
        Self {
            store,
            connect,
            fleet: Mutex::new(None),
            looks: Mutex::default(),
            runs: RwLock::new(Ok(vec![])),
            crew: RwLock::default(),
            histories: RwLock::default(),
            changed: watch::channel(0).0,
        }
    }

    /// Counts changes; subscribers wait for the next.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Refreshes in a loop that never ends, at most once per `every`, while there are subscribers.
    pub async fn follow(&self, every: Duration) {
        loop {
            let begin = Instant::now();
            if self.changed.receiver_count() > 0 {
                self.read_on().await;
            }
            // Leaves a slow store idle most of the time.
            sleep(every.max(begin.elapsed() * 4)).await;
        }
    }

    /// Refreshes once, and notifies subscribers if something changed.
    pub async fn read_on(&self) {
        let runs = self.looks.lock().await.all(&self.store).await;
        let runs = runs.map_err(|error| error.to_string());
        let mut changed = update(&mut *self.runs.write().await, runs);
        let histories: Vec<_> = self.histories.read().await.values().map(Arc::clone).collect();
        for history in histories {
            // A history that cannot be read now is read by the next refresh.
            changed |= history.write().await.read_on(&self.store).await.unwrap_or(false);
        }
        let crew = self.ask_crew().await;
        let shown = |crew: &Crew| {
            let workers = crew.workers.iter().map(|worker| (&worker.name, &worker.computing));
            format!("{:?}{:?}{:?}", workers.collect::<Vec<_>>(), crew.waiting, crew.error)
        };
        let known = std::mem::replace(&mut *self.crew.write().await, crew.clone());
        if changed || shown(&known) != shown(&crew) {
            self.changed.send_modify(|count| *count += 1);
        }
    }

    async fn ask_crew(&self) -> Crew {
        let Some(connect) = &self.connect else { return Crew::default() };
        let mut fleet = self.fleet.lock().await;
        let answer = async {
            if fleet.is_none() {
                *fleet = Some(connect().await?);
            }
            let Some(fleet) = fleet.as_ref() else { return Ok(Crew::default()) };
            let workers = workers(fleet).await?;
            let classes = workers.iter().map(|worker| worker.class);
            let classes: BTreeSet<_> = classes.chain([Numerics::CpuPortable]).collect();
            let mut waiting = vec![];
            for class in classes {
                waiting.push((class, fleet.waiting(class).await?));
            }
            waiting.retain(|(_, stages)| *stages > 0);
            Ok::<_, JobsError>(Crew { workers, waiting, error: None })
        };
        match answer.await {
            Ok(crew) => crew,
            Err(error) => {
                *fleet = None;
                Crew { error: Some(error.to_string()), ..Crew::default() }
            }
        }
    }

    /// The status of every run, or why it could not be read.
    pub async fn runs(&self) -> Result<Vec<RunStatus>, String> {
        self.runs.read().await.clone()
    }

    /// The workers and the queue.
    pub async fn crew(&self) -> Crew {
        self.crew.read().await.clone()
    }

    /// A run's history, read on the first call.
    pub async fn history(&self, run: RunId) -> Result<Arc<RwLock<RunHistory>>> {
        if let Some(history) = self.histories.read().await.get(&run) {
            return Ok(Arc::clone(history));
        }
        let history = Arc::new(RwLock::new(RunHistory::read(&self.store, run).await?));
        let mut histories = self.histories.write().await;
        Ok(Arc::clone(histories.entry(run).or_insert(history)))
    }
}
