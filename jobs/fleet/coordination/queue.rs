//! The queue: hints that a stage may be computed now. The only file that names apalis and, with its
//! scripts in `queue/`, the keys in which it keeps its tasks.
//!
//! A hint says where to look, never what is true: a worker that takes one asks the store first. apalis
//! 1.0.0 is held to what it does reliably on Redis: one task at a time, an explicit poll, a fresh
//! worker name at every start, heartbeats that go on while a worker drains. Its retries, attempts,
//! priorities and locks are not used. There is one queue for each class of numerics and each set of stage
//! versions, so that no worker takes a hint that is not for it: `<class>:<tag of the versions>`.
//!
//! ```text
//! <queue>:ready:<run>    stages that can be computed and are no tasks yet, in the order of the plan
//! <queue>:window:<run>   stages that are tasks and wait for a worker: stage -> task and key
//! <queue>:turns          runs that have either; who waited longest comes first
//! <queue>:taken          stages taken a moment ago, so that a stale look does not offer them again
//! <queue>:joins:<update> shards whose gradient is published
//! ```
//!
//! Stages become tasks in one script with the question whether they may, since apalis breaks for good
//! under too many of them and drops an id that it ever knew. So that script writes apalis's own keys.

use std::collections::BTreeSet;
use std::sync::LazyLock;
use std::time::Duration;

use agrpo_spec::{Numerics, RunId, StageDigest, StageKey};
use apalis::prelude::{
    BackendExt, BoxDynError, WorkerBuilder, WorkerBuilderExt, WorkerContext, WorkerError,
};
use apalis_redis::{Config, RedisStorage};
use redis::{Script, ScriptInvocation};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use crate::coordination::keys::{GENERATION, HELD, LEASE};
use crate::coordination::leases::LEASE as LEASE_LASTS;
use crate::coordination::redis::refusal::plain;
use crate::coordination::redis::{self as way, Fleet};
use agrpo_store::JobsError;
use agrpo_store::Versions;

/// Two workers may learn of the same stage at once: the second offer within this time is dropped, as is
/// one of a stage that was just taken.
const GRACE_SECONDS: u64 = 1;
/// Tasks of a queue at most; apalis breaks at just under 8,000.
pub(crate) const MOST_TASKS: u64 = 2000;
/// Stages that are kept ready for a run at most; a sweep offers what is left.
const MOST_READY: u64 = 10_000;
/// How many finished tasks one sweep forgets: more than a Redis gives out between two sweeps, so that what
/// it holds does not grow with the run.
const TIDY_BATCH: u32 = 20_000;
/// Shards that are known to be published are forgotten after this long without a further one.
const JOIN_SECONDS: i64 = 3600;

/// A script that shares the functions of the window.
fn script(text: &str) -> Script {
    way::script(&format!("{}\n{text}", include_str!("queue/window.lua")))
}

static OFFER: LazyLock<Script> = LazyLock::new(|| script(include_str!("queue/offer.lua")));
static TAKE: LazyLock<Script> = LazyLock::new(|| script(include_str!("queue/take.lua")));
static UNKNOWN: LazyLock<Script> = LazyLock::new(|| script(include_str!("queue/unknown.lua")));
static TIDY: LazyLock<Script> = LazyLock::new(|| script(include_str!("queue/tidy.lua")));

/// Where a worker may find work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hint {
    pub(crate) run: RunId,
    pub(crate) stage: StageDigest,
}

/// A hint that was taken; apalis learns that it is dealt with when `done` is used, and gives it out
/// again when `done` is dropped.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) hint: Hint,
    pub(crate) done: oneshot::Sender<()>,
}

/// How often apalis asks for work and shows that its worker lives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) poll: Duration,
    pub(crate) heartbeat: Duration,
    pub(crate) missed_heartbeats: usize,
}

impl Fleet {
    /// How many stages of a numerics class wait for a worker of this program's versions.
    pub async fn waiting(&self, numerics: Numerics) -> Result<u64, JobsError> {
        Queue::new(self, numerics, &Versions::own()).waiting().await
    }
}

/// The queue of one class of numerics, for programs of the same versions.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    fleet: Fleet,
    name: String,
    config: Config,
}

impl Queue {
    pub(crate) fn new(fleet: &Fleet, numerics: Numerics, versions: &Versions) -> Self {
        let name = fleet.keys.queue(numerics, versions);
        // Locks and events are for display only, and each adds a way for a worker to fail.
        let config = Config::default()
            .queue(name.clone())
            .batch_size(1)
            .lock_tasks(false)
            .emit_events(false);
        Self { fleet: fleet.clone(), name, config }
    }

    /// Offers those of the stages that are neither ready nor waiting nor being computed: they become
    /// tasks in this order as the window allows. Answers with how many were news.
    pub(crate) async fn offer(
        &self,
        run: RunId,
        stages: impl IntoIterator<Item = (StageKey, StageDigest)>,
    ) -> Result<usize, JobsError> {
        let mut stages = stages.into_iter().peekable();
        if stages.peek().is_none() {
            return Ok(0);
        }
        let mut call = self.with_window(&OFFER);
        call.arg(run.to_string());
        for (key, stage) in stages {
            call.arg(format!("{} {key} {stage}", key.order()));
        }
        self.fleet.invoke(&call).await
    }

    /// Those of the stages that are neither ready nor waiting nor being computed.
    pub(crate) async fn unknown(
        &self,
        run: RunId,
        stages: impl IntoIterator<Item = StageDigest>,
    ) -> Result<BTreeSet<StageDigest>, JobsError> {
        let mut call = self.with_window(&UNKNOWN);
        call.arg(run.to_string());
        for stage in stages {
            call.arg(stage.to_string());
        }
        let names: Vec<String> = self.fleet.invoke(&call).await?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Notes that a hint was taken and lets another stage take its place. Answers with the stage's
    /// place in its run where that is known; like the hint, it may be wrong.
    pub(crate) async fn take(&self, hint: Hint) -> Result<Option<StageKey>, JobsError> {
        let mut call = self.with_window(&TAKE);
        call.arg(hint.run.to_string()).arg(hint.stage.to_string());
        let key: String = self.fleet.invoke(&call).await?;
        Ok(key.parse().ok())
    }

    /// Notes that a shard's gradient for an update is published; answers with how many shards' are.
    pub(crate) async fn join(
        &self,
        run: RunId,
        update: StageKey,
        shard: u32,
    ) -> Result<u32, JobsError> {
        let key = self.key(&format!("joins:{run}:{update}"));
        let mut pipe = redis::pipe();
        pipe.atomic().sadd(&key, shard).ignore().expire(&key, JOIN_SECONDS).ignore().scard(&key);
        let (count,): (u32,) = self.fleet.ask_all(&pipe).await?;
        Ok(count)
    }

    /// Forgets the shards of an update that is done.
    pub(crate) async fn joined(&self, run: RunId, update: StageKey) -> Result<(), JobsError> {
        self.delete(&self.key(&format!("joins:{run}:{update}"))).await
    }

    /// Forgets what is kept ready of a run that is done or stands still.
    pub(crate) async fn withdraw(&self, run: RunId) -> Result<(), JobsError> {
        self.delete(&self.key(&format!("ready:{run}"))).await
    }

    async fn delete(&self, key: &str) -> Result<(), JobsError> {
        self.fleet.ask(redis::cmd("DEL").arg(key)).await
    }

    fn key(&self, name: &str) -> String {
        format!("{}:{name}", self.name)
    }

    /// A call with everything that the window's functions use.
    fn with_window(&self, script: &'static Script) -> ScriptInvocation<'static> {
        let mut call = script.prepare_invoke();
        call.key(self.config.job_data_hash())
            .key(self.config.job_meta_hash())
            .key(self.config.active_jobs_list())
            .key(self.config.scheduled_jobs_set())
            .key(self.config.workers_set())
            .key(self.fleet.keys.of(GENERATION))
            .key(self.key("turns"))
            .key(self.key("taken"))
            .key(self.fleet.keys.of(HELD))
            .arg(self.key("ready:"))
            .arg(self.key("window:"))
            .arg(self.fleet.keys.of(LEASE))
            .arg(MOST_TASKS)
            .arg(GRACE_SECONDS)
            .arg(MOST_READY)
            .arg(LEASE_LASTS.as_millis());
        call
    }

    /// How many tasks wait for a worker.
    pub(crate) async fn waiting(&self) -> Result<u64, JobsError> {
        let mut pipe = redis::pipe();
        pipe.llen(self.config.active_jobs_list()).zcard(self.config.scheduled_jobs_set());
        let (active, scheduled): (u64, u64) = self.fleet.ask_all(&pipe).await?;
        Ok(active + scheduled)
    }

    /// Forgets that a stage was taken: it may be offered again at once.
    pub(crate) async fn forget(&self, stage: StageDigest) -> Result<(), JobsError> {
        self.fleet.ask(redis::cmd("ZREM").arg(self.key("taken")).arg(stage.to_string())).await
    }

    /// Removes what apalis keeps about finished tasks, which it never does by itself, and what is noted
    /// of tasks that were lost. Answers with how many those were.
    pub(crate) async fn tidy(&self) -> Result<u64, JobsError> {
        let mut call = self.with_window(&TIDY);
        call.key(self.config.done_jobs_set())
            .key(self.config.dead_jobs_set())
            .key(self.config.inflight_jobs_set())
            .arg(TIDY_BATCH);
        self.fleet.invoke(&call).await
    }

    /// Signs a worker off, whatever its end was. apalis leaves its name and the tasks that it held to
    /// the next heartbeat of another worker; and a task that made it stumble would make that one
    /// stumble too. So held tasks are deleted, and a sweep offers their stages again.
    pub(crate) async fn leave(&self, worker: &str) -> Result<(), JobsError> {
        static LEAVE: LazyLock<Script> = LazyLock::new(|| {
            way::script(
                "for _, id in ipairs(redis.call('SMEMBERS', KEYS[1])) do
                     redis.call('HDEL', KEYS[2], id)
                     redis.call('DEL', KEYS[3] .. ':' .. id)
                 end
                 redis.call('ZREM', KEYS[4], ARGV[1])
                 return answer(redis.call('DEL', KEYS[1], KEYS[5]))",
            )
        });
        let context = WorkerContext::new(worker);
        let mut call = LEAVE.prepare_invoke();
        call.key(self.config.inflight_set_for(&context))
            .key(self.config.job_data_hash())
            .key(self.config.job_meta_hash())
            .key(self.config.workers_set())
            .key(self.config.worker_metadata_key(&context))
            .arg(worker);
        self.fleet.invoke::<u64>(&call).await.map(drop)
    }

    /// Takes hints, one at a time, until `ending` resolves; then takes no new one and waits for the
    /// one in hand. Unavailable if Redis is lost or has forgotten this worker.
    pub(crate) async fn consume(
        &self,
        pace: Pace,
        worker: &str,
        work: mpsc::Sender<Delivery>,
        ending: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), JobsError> {
        let config = self
            .config
            .clone()
            .heartbeat_interval(pace.heartbeat)
            .missed_heartbeats(pace.missed_heartbeats);
        let handler = move |task: Value| {
            let work = work.clone();
            async move {
                let Ok(hint) = serde_json::from_value(task) else {
                    tracing::warn!("a task that is no hint was dropped from the queue");
                    return Ok::<(), BoxDynError>(());
                };
                let (done, dealt_with) = oneshot::channel();
                work.send(Delivery { hint, done }).await?;
                Ok(dealt_with.await?)
            }
        };
        let mut ending = Some(ending);
        let consumed = WorkerBuilder::new(worker)
            .backend(self.storage(config).poll_with_interval(pace.poll))
            .concurrency(1)
            .build(handler)
            .run_with_ctx(move |context| drain_after(ending.take(), context))
            .await;
        match consumed {
            Ok(()) => Ok(()),
            Err(error) => Err(self.failure(&plain(&error)).await),
        }
    }

    /// Tasks are any JSON: apalis takes one that it cannot decode for a lost backend, and each worker
    /// that met it would end.
    fn storage(&self, config: Config) -> RedisStorage<Value> {
        RedisStorage::new(self.fleet.connection()).with_config(config)
    }

    /// What an error of apalis means, of which only its words are left.
    async fn failure(&self, text: &str) -> JobsError {
        if text.contains("not registered") || text.contains("not executed by worker") {
            return JobsError::Unavailable(format!(
                "Redis at {} was emptied or stalled, and has forgotten this worker",
                self.fleet.place()
            ));
        }
        self.fleet.meaning(text).await
    }
}

/// Pause, wait, stop: a worker that is stopped at once sends no more heartbeats, and its task
/// would be given to another while it still computes.
async fn drain_after<F: Future<Output = ()>>(
    ending: Option<F>,
    context: WorkerContext,
) -> Result<(), WorkerError> {
    if let Some(ending) = ending {
        ending.await;
    }
    while !context.is_running() {
        sleep(Duration::from_millis(10)).await;
    }
    context.pause()?;
    while context.has_pending_tasks() {
        sleep(Duration::from_millis(50)).await;
    }
    // The acknowledgement leaves after the task has ended.
    sleep(Duration::from_millis(500)).await;
    context.stop()
}
