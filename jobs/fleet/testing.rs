//! Shared by the fleet's tests: servers, stores that count, fail or are slow, and runs in one process.

use std::sync::Arc;

use agrpo_spec::{Appended, ExecuteFn, Run};
use agrpo_store::{Clock, Control, Hold, JobsError, Repair, Store, Versions};
use tokio::sync::{mpsc, watch};

use crate::local::{Local, Outcome};
use crate::{Event, LogTail};

#[path = "../../tests/support/counting_store.rs"]
mod counting_store;
#[expect(dead_code, reason = "the store's tests use the rest")]
#[path = "../../tests/support/fake_s3.rs"]
pub(crate) mod fake_s3;
#[path = "../../tests/support/flaky_store.rs"]
mod flaky_store;
#[path = "../../tests/support/redis.rs"]
mod redis_server;
#[expect(dead_code, reason = "the fault suite kills it")]
#[path = "../../tests/support/s3.rs"]
mod s3_server;
#[path = "../../tests/support/stages.rs"]
mod stages;
#[path = "../../tests/support/stores.rs"]
mod stores;

pub(crate) use counting_store::{Counts, counting};
pub(crate) use flaky_store::flaky;
pub(crate) use redis_server::RedisServer;
pub(crate) use s3_server::S3Server;
pub(crate) use stages::{environment, fake_outputs, run, run_named, run_of, run_seeded};
pub(crate) use stores::{Objects, TestStore, hold, other_versions, repairs, throttled, with_large};

/// A run with three inner updates an iteration, which are one stage.
pub(crate) fn run_fused(name: &str, iterations: u32, shards: u32) -> Run {
    let mut config = run_of(name, iterations, shards).config().clone();
    (config.estimator.inner_updates, config.estimator.fused_updates) = (3, true);
    Run::resolve(config).unwrap()
}

pub(crate) fn fake() -> ExecuteFn {
    Arc::new(fake_outputs)
}

pub(crate) fn clock() -> Clock {
    Arc::new(|| 1_700_000_000_000)
}

/// The machine's own, for workers, who compare theirs with Redis'.
pub(crate) fn real_clock() -> Clock {
    Arc::new(|| {
        let since = std::time::UNIX_EPOCH.elapsed().unwrap();
        u64::try_from(since.as_millis()).unwrap()
    })
}

/// [`run`] with evaluations of its 4 problems in 3 shards.
pub(crate) fn run_in_shards() -> Run {
    let mut config = run().config().clone();
    config.evaluation.shards = Appended(Some(3));
    Run::resolve(config).unwrap()
}

/// A process that logs one line whatever happens.
pub(crate) fn local(store: &Store, execute: ExecuteFn, workers: usize) -> Local {
    let log_tail: LogTail = Arc::new(|since| vec![format!("logged since {since}")]);
    let (store, environment, clock) = (store.clone(), environment(), clock());
    Local { store, execute, workers, environment, clock, log_tail }
}

/// Runs to the end; gives the events as well.
pub(crate) async fn finish(
    store: &Store,
    run: Run,
    execute: ExecuteFn,
    workers: usize,
) -> (Result<Outcome, JobsError>, Vec<Event>) {
    let (events, mut heard) = mpsc::unbounded_channel();
    let (_stop, stop) = watch::channel(false);
    let outcome = local(store, execute, workers).run(run, false, events, stop).await;
    let mut all = vec![];
    while let Ok(event) = heard.try_recv() {
        all.push(event);
    }
    (outcome, all)
}

/// Repairs a run and computes it to its end.
pub(crate) async fn repaired(store: &Store, run: Run) -> Result<Outcome, JobsError> {
    let (events, _heard) = mpsc::unbounded_channel();
    let (_stop, stop) = watch::channel(false);
    local(store, fake(), 2).run(run, true, events, stop).await
}

/// Runs to the end, which must be reached.
pub(crate) async fn finished(store: &Store, run: Run, workers: usize) -> Outcome {
    finish(store, run, fake(), workers).await.0.unwrap()
}
