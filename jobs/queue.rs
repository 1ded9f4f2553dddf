//! The queue: hints that a stage may be computed now. The only file that names apalis and the keys
//! in which it keeps its tasks.
//!
//! A hint says where to look, never what is true: whoever takes one asks the store first. apalis
//! 1.0.0 is held to what it does reliably on Redis: one task at a time, an explicit poll, a fresh
//! worker name at every start, heartbeats that go on while a worker drains. Its retries, attempts,
//! priorities and locks are not used. There is one queue for each class of numerics.

use std::sync::LazyLock;
use std::time::Duration;

use agrpo_spec::{Numerics, RunId, StageDigest};
use apalis::prelude::{
    BackendExt, BoxDynError, TaskBuilder, TaskId, TaskSink, WorkerBuilder, WorkerBuilderExt,
    WorkerContext, WorkerError,
};
use apalis_redis::{Config, RedisStorage};
use futures::stream;
use redis::Script;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use crate::error::JobsError;
use crate::lease;
use crate::redis::Fleet;

const GENERATION: &str = "agrpo:generation";
const OFFERED: &str = "agrpo:offered:";
/// Two workers may learn of the same stage at once: the second offer within this time is dropped.
const GRACE_SECONDS: u64 = 1;
/// A task that apalis still knows, though nothing waits and nobody is at work on it, was lost with
/// its worker. This long is more than a worker takes from fetching a task to leasing its stage.
const LOST_SECONDS: u64 = 60;
/// How many finished tasks one sweep forgets.
const TIDY_BATCH: u32 = 1000;

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

/// The queue of one class of numerics.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    fleet: Fleet,
    config: Config,
}

impl Queue {
    pub(crate) fn new(fleet: &Fleet, numerics: Numerics) -> Self {
        // Locks and events are for display only, and each adds a way for a worker to fail.
        let config = Config::default()
            .queue(format!("agrpo:{numerics}"))
            .batch_size(1)
            .lock_tasks(false)
            .emit_events(false);
        Self { fleet: fleet.clone(), config }
    }

    /// Offers those of the stages that are neither waiting nor being computed; in this order.
    pub(crate) async fn offer(
        &self,
        run: RunId,
        stages: impl IntoIterator<Item = StageDigest>,
    ) -> Result<usize, JobsError> {
        let stages: Vec<StageDigest> = stages.into_iter().collect();
        if stages.is_empty() {
            return Ok(0);
        }
        let ids = self.claim_ids(&stages).await?;
        let task = |(stage, id): (StageDigest, String)| {
            let hint = serde_json::to_value(Hint { run, stage }).expect("two names serialise");
            TaskBuilder::new(hint).task_id(TaskId::from_string(id)).build()
        };
        let tasks: Vec<_> =
            stages.into_iter().zip(ids).filter(|(_, id)| !id.is_empty()).map(task).collect();
        let count = tasks.len();
        if count > 0 {
            self.storage(self.config.clone())
                .push_all(stream::iter(tasks))
                .await
                .map_err(|error| self.failure("offering stages", &error))?;
        }
        Ok(count)
    }

    /// A fresh task id for each stage that is to be offered, an empty one for the others.
    ///
    /// apalis drops a push under an id that it ever knew, so ids carry a generation. It comes first
    /// and has leading zeros because tasks pushed within a second run in the order of their ids.
    async fn claim_ids(&self, stages: &[StageDigest]) -> Result<Vec<String>, JobsError> {
        static CLAIM: LazyLock<Script> = LazyLock::new(|| {
            Script::new(
                "local data, done, dead, active, scheduled, generation = unpack(KEYS)
                 local now = tonumber(redis.call('TIME')[1])
                 local waiting = redis.call('LLEN', active) + redis.call('ZCARD', scheduled)
                 local ids = {}
                 for i = 5, #ARGV do
                     local marker = ARGV[1] .. ARGV[i]
                     local wanted = redis.call('EXISTS', ARGV[2] .. ARGV[i]) == 0
                     local offered = redis.call('HMGET', marker, 'task', 'at')
                     if wanted and offered[1] then
                         local age = now - tonumber(offered[2])
                         local known = redis.call('HEXISTS', data, offered[1]) == 1
                             and redis.call('SISMEMBER', done, offered[1]) == 0
                             and redis.call('SISMEMBER', dead, offered[1]) == 0
                         local lost = waiting == 0 and age > tonumber(ARGV[4])
                         wanted = age > tonumber(ARGV[3]) and (not known or lost)
                     end
                     local id = ''
                     if wanted then
                         local number = redis.call('INCR', generation)
                         id = string.format('%015d', number) .. '.' .. ARGV[i]
                         redis.call('HSET', marker, 'task', id, 'at', now)
                         redis.call('EXPIRE', marker, 86400)
                     end
                     ids[#ids + 1] = id
                 end
                 return ids",
            )
        });
        let mut call = CLAIM.prepare_invoke();
        call.key(self.config.job_data_hash())
            .key(self.config.done_jobs_set())
            .key(self.config.dead_jobs_set())
            .key(self.config.active_jobs_list())
            .key(self.config.scheduled_jobs_set())
            .key(GENERATION)
            .arg(OFFERED)
            .arg(lease::STAGE)
            .arg(GRACE_SECONDS)
            .arg(LOST_SECONDS);
        for stage in stages {
            call.arg(stage.to_string());
        }
        call.invoke_async(&mut self.fleet.connection())
            .await
            .map_err(|error| self.fleet.failure(&error))
    }

    /// How many tasks wait for a worker.
    pub(crate) async fn waiting(&self) -> Result<u64, JobsError> {
        let (active, scheduled): (u64, u64) = redis::pipe()
            .llen(self.config.active_jobs_list())
            .zcard(self.config.scheduled_jobs_set())
            .query_async(&mut self.fleet.connection())
            .await
            .map_err(|error| self.fleet.failure(&error))?;
        Ok(active + scheduled)
    }

    /// Forgets that a stage was offered: it is done, or shall be offered again at once.
    pub(crate) async fn forget(&self, stage: StageDigest) -> Result<(), JobsError> {
        redis::cmd("DEL")
            .arg(format!("{OFFERED}{stage}"))
            .query_async(&mut self.fleet.connection())
            .await
            .map_err(|error| self.fleet.failure(&error))
    }

    /// Removes what apalis keeps about finished tasks, which it never does by itself.
    pub(crate) async fn tidy(&self) -> Result<(), JobsError> {
        static TIDY: LazyLock<Script> = LazyLock::new(|| {
            Script::new(
                "local ids = redis.call('SPOP', KEYS[1], ARGV[1])
                 for _, id in ipairs(ids) do
                     redis.call('HDEL', KEYS[2], id)
                     redis.call('DEL', KEYS[3] .. ':' .. id)
                 end
                 return #ids",
            )
        });
        TIDY.key(self.config.done_jobs_set())
            .key(self.config.job_data_hash())
            .key(self.config.job_meta_hash())
            .arg(TIDY_BATCH)
            .invoke_async(&mut self.fleet.connection())
            .await
            .map_err(|error| self.fleet.failure(&error))
    }

    /// Signs a worker off, whatever its end was. apalis leaves its name and the tasks that it held to
    /// the next heartbeat of another worker; and a task that made it stumble would make that one
    /// stumble too. So held tasks are deleted, and a sweep offers their stages again.
    pub(crate) async fn leave(&self, worker: &str) -> Result<(), JobsError> {
        static LEAVE: LazyLock<Script> = LazyLock::new(|| {
            Script::new(
                "for _, id in ipairs(redis.call('SMEMBERS', KEYS[1])) do
                     redis.call('HDEL', KEYS[2], id)
                     redis.call('DEL', KEYS[3] .. ':' .. id)
                 end
                 redis.call('ZREM', KEYS[4], ARGV[1])
                 return redis.call('DEL', KEYS[1], KEYS[5])",
            )
        });
        let context = WorkerContext::new(worker);
        LEAVE
            .key(self.config.inflight_set_for(&context))
            .key(self.config.job_data_hash())
            .key(self.config.job_meta_hash())
            .key(self.config.workers_set())
            .key(self.config.worker_metadata_key(&context))
            .arg(worker)
            .invoke_async(&mut self.fleet.connection())
            .await
            .map_err(|error| self.fleet.failure(&error))
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
        WorkerBuilder::new(worker)
            .backend(self.storage(config).poll_with_interval(pace.poll))
            .concurrency(1)
            .build(handler)
            .run_with_ctx(move |context| drain_after(ending.take(), context))
            .await
            .map_err(|error| self.failure("the worker's exchange", &error))
    }

    /// Tasks are any JSON: apalis takes one that it cannot decode for a lost backend, and each worker
    /// that met it would end.
    fn storage(&self, config: Config) -> RedisStorage<Value> {
        RedisStorage::new(self.fleet.connection()).with_config(config)
    }

    fn failure(&self, what: &str, error: &(dyn std::error::Error + 'static)) -> JobsError {
        let text = error.to_string();
        let cause = if text.contains("not registered") || text.contains("not executed by worker") {
            "Redis was emptied or stalled, and has forgotten this worker".to_owned()
        } else {
            text.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        JobsError::Unavailable(format!(
            "{what} with Redis at {} failed ({cause}): finished stages are safe in the store; start \
             the worker again",
            self.fleet.place()
        ))
    }
}

/// Pause, wait, stop: a worker that is told to stop at once sends no more heartbeats, and its task
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
