//! What a live page knows: every run's standing, the stories of those that somebody looks at, the workers.
//!
//! Reads on in the background while anybody listens, so that a view is drawn from memory. Services that are
//! away are told of and asked again; nothing here writes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use agrpo_jobs::status::{Looks, RunStatus};
use agrpo_jobs::{Fleet, JobsError, Store, WorkerInfo, workers};
use agrpo_spec::{Numerics, RunId};
use tokio::sync::{Mutex, RwLock, watch};
use tokio::time::{Instant, sleep};

use crate::ViewError;
use crate::story::Story;

/// How connections to Redis are made, again and again where there is none.
pub type Connect = Arc<
    dyn Fn() -> std::pin::Pin<Box<dyn Future<Output = Result<Fleet, JobsError>> + Send>>
        + Send
        + Sync,
>;

/// What the fleet says of itself.
#[derive(Clone, Debug, Default)]
pub struct Crew {
    /// Who works.
    pub workers: Vec<WorkerInfo>,
    /// Stages that wait, by class.
    pub waiting: Vec<(Numerics, u64)>,
    /// Why nobody can tell, if so.
    pub away: Option<String>,
}

/// All that pages are drawn from.
pub struct Hub {
    store: Store,
    connect: Option<Connect>,
    fleet: Mutex<Option<Fleet>>,
    looks: Mutex<Looks>,
    runs: RwLock<Result<Vec<RunStatus>, String>>,
    crew: RwLock<Crew>,
    stories: RwLock<BTreeMap<RunId, Arc<RwLock<Story>>>>,
    changed: watch::Sender<u64>,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Hub {
    /// Knows nothing yet. Without `connect` there is no fleet to tell of.
    pub fn new(store: Store, connect: Option<Connect>) -> Self {
        Self {
            store,
            connect,
            fleet: Mutex::new(None),
            looks: Mutex::default(),
            runs: RwLock::new(Ok(vec![])),
            crew: RwLock::default(),
            stories: RwLock::default(),
            changed: watch::channel(0).0,
        }
    }

    /// The store that is looked at.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Counts changes; who looks on waits for the next.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Reads on for ever, so often at most, while anybody listens.
    pub async fn follow(&self, every: Duration) {
        loop {
            let begin = Instant::now();
            if self.changed.receiver_count() > 0 {
                self.read_on().await;
            }
            // A slow store is not kept busy by those who only look.
            sleep(every.max(begin.elapsed() * 4)).await;
        }
    }

    /// Reads on once, and says so where something has changed.
    pub async fn read_on(&self) {
        let mut changed = false;
        let runs = self.looks.lock().await.all(&self.store).await;
        let runs = runs.map_err(|error| error.to_string());
        {
            let mut known = self.runs.write().await;
            changed |= serde_json::to_string(&*known).ok() != serde_json::to_string(&runs).ok();
            *known = runs;
        }
        let stories: Vec<_> = self.stories.read().await.values().map(Arc::clone).collect();
        for story in stories {
            // What cannot be read now is read on later; the page says what it knows.
            changed |= story.write().await.read_on(&self.store).await.unwrap_or(false);
        }
        let crew = self.ask_crew().await;
        {
            let mut known = self.crew.write().await;
            let tells = |crew: &Crew| {
                let hands = crew.workers.iter().map(|worker| (&worker.name, &worker.in_hand));
                format!("{:?}{:?}{:?}", hands.collect::<Vec<_>>(), crew.waiting, crew.away)
            };
            changed |= tells(&known) != tells(&crew);
            *known = crew;
        }
        if changed {
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
            let mut classes: Vec<_> = workers.iter().map(|worker| worker.class).collect();
            classes.extend(Numerics::OF_CPU);
            classes.sort_unstable();
            classes.dedup();
            let mut waiting = vec![];
            for class in classes {
                waiting.push((class, fleet.waiting(class).await?));
            }
            waiting.retain(|(_, stages)| *stages > 0);
            Ok::<_, JobsError>(Crew { workers, waiting, away: None })
        };
        match answer.await {
            Ok(crew) => crew,
            Err(error) => {
                *fleet = None;
                Crew { away: Some(error.to_string()), ..Crew::default() }
            }
        }
    }

    /// Where runs stand, or why nobody can tell.
    pub async fn runs(&self) -> Result<Vec<RunStatus>, String> {
        self.runs.read().await.clone()
    }

    /// What the fleet says.
    pub async fn crew(&self) -> Crew {
        self.crew.read().await.clone()
    }

    /// A run's story, read when somebody first asks for it.
    pub async fn story(&self, run: RunId) -> Result<Arc<RwLock<Story>>, ViewError> {
        if let Some(story) = self.stories.read().await.get(&run) {
            return Ok(Arc::clone(story));
        }
        let story = Arc::new(RwLock::new(Story::read(&self.store, run).await?));
        let mut stories = self.stories.write().await;
        Ok(Arc::clone(stories.entry(run).or_insert(story)))
    }
}
