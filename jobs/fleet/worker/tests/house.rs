//! What every test of a worker needs: a Redis, a store, a run, and stages that cost nothing.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use agrpo_spec::{Inputs, OutputRecord, Run, StageError, StageKind, StageSpec};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::super::runs::View;
use super::super::scheduler::Scheduler;
use super::*;
use crate::planning::progress::Progress;
use crate::stage::Pending;
use crate::testing::{self, Counts, Objects, RedisServer, TestStore};
use agrpo_store::Versions;

/// What a stage does before it gives its result: called with its spec and how often it was begun.
type Before = dyn Fn(&StageSpec, u64) -> Result<(), StageError> + Send + Sync;

type Calls = Arc<Mutex<BTreeMap<StageDigest, (StageKind, u64)>>>;

/// Every output of a run, by stage and name.
pub(super) type Results = BTreeMap<StageKey, BTreeMap<String, OutputRecord>>;

pub(super) struct House {
    pub(super) redis: RedisServer,
    pub(super) store: Store,
    pub(super) objects: Objects,
    pub(super) fleet: Fleet,
    calls: Calls,
    execute: ExecuteFn,
    sender: mpsc::UnboundedSender<Event>,
    heard: Mutex<mpsc::UnboundedReceiver<Event>>,
    starts: AtomicU64,
    /// What the store was asked for.
    pub(super) counts: Counts,
}

impl House {
    pub(super) async fn new() -> Self {
        Self::with(|_, _| Ok(())).await
    }

    /// Every stage takes this long.
    pub(super) async fn slow(delay: Duration) -> Self {
        Self::with(move |_, _| {
            std::thread::sleep(delay);
            Ok(())
        })
        .await
    }

    pub(super) async fn with(
        before: impl Fn(&StageSpec, u64) -> Result<(), StageError> + Send + Sync + 'static,
    ) -> Self {
        let (objects, counts) = testing::counting();
        Self::over(TestStore::over(objects), counts, before).await
    }

    /// The same on another store.
    pub(super) async fn over(
        test: TestStore,
        counts: Counts,
        before: impl Fn(&StageSpec, u64) -> Result<(), StageError> + Send + Sync + 'static,
    ) -> Self {
        let TestStore { store, objects, .. } = test;
        let redis = RedisServer::start(&[]);
        let fleet = Fleet::connect(&redis.url()).await.unwrap();
        let calls = Calls::default();
        let execute = counted(Arc::clone(&calls), Arc::new(before));
        let (sender, heard) = mpsc::unbounded_channel();
        let (heard, starts) = (Mutex::new(heard), AtomicU64::new(0));
        Self { redis, store, objects, fleet, calls, execute, sender, heard, starts, counts }
    }

    pub(super) fn run(&self) -> Run {
        testing::run()
    }

    pub(super) async fn enqueue(&self) {
        self.enqueue_run(self.run()).await;
    }

    pub(super) async fn enqueue_run(&self, run: Run) -> Enqueued {
        enqueue(&self.store, &self.fleet, run).await.unwrap()
    }

    /// A quick pace, and a name that no other worker of this house had.
    pub(super) fn options(&self, name: &str) -> WorkerOptions {
        let name = format!("{name}-{}", self.starts.fetch_add(1, Ordering::SeqCst));
        WorkerOptions {
            poll: Duration::from_millis(20),
            lease: Duration::from_millis(1500),
            reconcile: Duration::from_millis(200),
            // So long that only the first turn of the reconciler, or an emptied Redis, has the store searched.
            survey: Duration::from_secs(3600),
            retry_for: Duration::from_secs(20),
            elsewhere: Duration::from_secs(5),
            ..WorkerOptions::new(
                Numerics::CpuPortable,
                name,
                testing::environment(),
                testing::real_clock(),
            )
        }
    }

    pub(super) async fn serve(&self, options: WorkerOptions) -> Result<(), JobsError> {
        let (_stop, stopped) = watch::channel(false);
        self.serve_until(options, stopped).await
    }

    fn serve_until(
        &self,
        options: WorkerOptions,
        stop: watch::Receiver<bool>,
    ) -> impl Future<Output = Result<(), JobsError>> + Send + 'static {
        let (store, fleet) = (self.store.clone(), self.fleet.clone());
        serve(store, fleet, Arc::clone(&self.execute), options, self.sender.clone(), stop)
    }

    /// A worker on a task of its own.
    pub(super) fn worker(&self, name: &str) -> WorkerHandle {
        self.worker_with(self.options(name))
    }

    pub(super) fn worker_with(&self, options: WorkerOptions) -> WorkerHandle {
        let (stop, stopped) = watch::channel(false);
        WorkerHandle { stop, task: spawn(self.serve_until(options, stopped)) }
    }

    /// The parts of a worker, of which none is at work but its heartbeat.
    pub(super) async fn parts(&self, name: &str) -> Arc<Worker> {
        let options = WorkerOptions { retry_for: Duration::from_secs(1), ..self.options(name) };
        let (store, fleet, events) = (self.store.clone(), self.fleet.clone(), self.sender.clone());
        Arc::new(Worker {
            queue: self.queue(options.numerics),
            execute: Arc::clone(&self.execute),
            heartbeat: Heartbeat::start(&fleet, options.heartbeat_settings()).await.unwrap(),
            scheduler: Scheduler::new(store, fleet, options.versions.clone(), events),
            options,
            stop: watch::channel(false).1,
            halt: watch::Sender::new(None),
            reconciler: tokio::sync::Mutex::default(),
            backed_off: tokio::sync::Mutex::default(),
            base: std::sync::Mutex::default(),
            unsettled: AtomicUsize::new(0),
        })
    }

    /// A worker that a supervisor starts again, under a new name, whenever it ends as Unavailable.
    pub(super) fn supervised(&self, name: &str) -> WorkerHandle {
        let (stop, stopped) = watch::channel(false);
        let lives: Vec<_> =
            (0..20).map(|_| self.serve_until(self.options(name), stopped.clone())).collect();
        let task = spawn(async move {
            for life in lives {
                match life.await {
                    Err(JobsError::Unavailable(_)) => sleep(Duration::from_millis(200)).await,
                    ended => return ended,
                }
            }
            Err(JobsError::Internal("restarted too often".into()))
        });
        WorkerHandle { stop, task }
    }

    /// How often each stage was begun.
    pub(super) fn calls(&self) -> BTreeMap<StageDigest, u64> {
        self.calls.lock().unwrap().iter().map(|(stage, (_, count))| (*stage, *count)).collect()
    }

    pub(super) fn calls_of(&self, kind: StageKind) -> u64 {
        let calls = self.calls.lock().unwrap();
        calls.values().filter(|(of, _)| *of == kind).map(|(_, count)| count).sum()
    }

    pub(super) async fn until_calls(&self, count: u64) {
        self.until("stages to be begun", async || self.calls().values().sum::<u64>() >= count)
            .await;
    }

    /// What the workers emitted since the last call.
    pub(super) fn events(&self) -> Vec<Event> {
        let mut heard = self.heard.lock().unwrap();
        std::iter::from_fn(|| heard.try_recv().ok()).collect()
    }

    async fn progress(&self) -> Progress {
        self.progress_of(self.run()).await
    }

    async fn progress_of(&self, run: Run) -> Progress {
        let mut progress = Progress::open(&self.store, run).await.unwrap();
        progress.catch_up(&self.store).await.unwrap();
        progress
    }

    /// The stages that can be computed now.
    pub(super) async fn pending(&self) -> Vec<(StageKey, StageDigest)> {
        self.specs().await.into_iter().map(|pending| (pending.key, pending.stage)).collect()
    }

    /// The same with their specs.
    pub(super) async fn specs(&self) -> Vec<Pending> {
        View::of(&self.progress().await).pending
    }

    pub(super) async fn finished(&self) -> u64 {
        self.progress().await.done
    }

    pub(super) async fn until_done(&self) {
        self.until_done_with(&self.run()).await;
    }

    pub(super) async fn until_done_with(&self, run: &Run) {
        let is_done = async || self.progress_of(run.clone()).await.plan.is_done();
        self.until("the run to be done", is_done).await;
    }

    pub(super) async fn until(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let reached = async {
            while !holds().await {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = timeout(Duration::from_secs(60), reached).await;
        assert!(waited.is_ok(), "waited too long for {what}; {} events", self.events().len());
    }

    /// Every output of the run.
    pub(super) async fn result(&self) -> Results {
        self.result_of(&self.run()).await
    }

    pub(super) async fn result_of(&self, run: &Run) -> Results {
        results(&self.store, run.id()).await
    }

    /// The same from a run in one process, in a store of its own.
    pub(super) async fn expected(&self) -> Results {
        expected_of(&self.run()).await
    }

    pub(super) async fn redis_says<T: redis::FromRedisValue>(&self, command: &[&str]) -> T {
        let mut connection = self.fleet.connection();
        redis::cmd(command[0]).arg(&command[1..]).query_async(&mut connection).await.unwrap()
    }

    /// The queue of a class, for workers of this program.
    pub(super) fn queue(&self, numerics: Numerics) -> Queue {
        Queue::new(&self.fleet, numerics, &Versions::own())
    }

    /// What the keys of the queue begin with.
    pub(super) fn queue_name(&self) -> String {
        self.fleet.keys.queue(Numerics::CpuPortable, &Versions::own())
    }

    /// Hints that a worker could take.
    pub(super) async fn waiting(&self) -> u64 {
        self.queue(Numerics::CpuPortable).waiting().await.unwrap()
    }

    pub(super) async fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = self.redis_says(&["KEYS", "*"]).await;
        keys.sort_unstable();
        keys
    }
}

/// What a run gives in one process, in a store of its own.
pub(super) async fn expected_of(run: &Run) -> Results {
    let store = Store::open("memory://", &[]).await.unwrap();
    testing::finished(&store, run.clone(), 2).await;
    results(&store, run.id()).await
}

async fn results(store: &Store, run: RunId) -> Results {
    let mut results = Results::new();
    for (key, stage) in store.records.recorded_stages(run).await.unwrap() {
        results.insert(key, store.records.complete_manifest(stage).await.unwrap().unwrap().outputs);
    }
    results
}

/// A worker at work.
pub(super) struct WorkerHandle {
    pub(super) stop: watch::Sender<bool>,
    pub(super) task: JoinHandle<Result<(), JobsError>>,
}

impl WorkerHandle {
    pub(super) async fn end(self) -> Result<(), JobsError> {
        timeout(Duration::from_secs(30), self.task).await.expect("the worker ends").unwrap()
    }

    /// Ends it at once, like a process that was killed.
    pub(super) async fn crash(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

/// Lets the workers work until the run is done, and ends them: each stage was computed once, to the bytes of
/// a run in one process.
pub(super) async fn finish_once(workers: impl IntoIterator<Item = WorkerHandle>, house: &House) {
    house.until_done().await;
    for worker in workers {
        worker.stop.send_replace(true);
        worker.end().await.unwrap();
    }
    let run = house.run();
    assert_eq!(house.calls().values().sum::<u64>(), agrpo_spec::Plan::total_stages(&run));
    assert_eq!(house.result().await, house.expected().await);
}

/// Lets the worker work until the run is done, and ends it.
pub(super) async fn finish(worker: WorkerHandle, house: &House) {
    house.until_done().await;
    worker.stop.send_replace(true);
    worker.end().await.unwrap();
}

#[expect(clippy::disallowed_methods, reason = "a handle that aborts alone stands for a process")]
fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(task)
}

/// The crate's fake stages, counted, with something before them.
fn counted(calls: Calls, before: Arc<Before>) -> ExecuteFn {
    Arc::new(move |spec: &StageSpec, inputs: &Inputs| {
        let begun = {
            let mut calls = calls.lock().unwrap();
            let (_, count) = calls.entry(spec.digest()).or_insert((spec.kind(), 0));
            *count += 1;
            *count
        };
        before(spec, begun)?;
        testing::fake_outputs(spec, inputs)
    })
}
