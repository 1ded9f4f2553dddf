//! Workers against a real Redis and a store, with stages that cost nothing: whatever happens to
//! Redis or to a worker, the run ends where a run in one process ends.

mod bases;
mod clocks;
mod control;
mod cost;
mod crowd;
mod evaluations;
mod failures;
mod faults;
mod following;
mod house;
mod loss;
mod refusals;
mod scheduling;
mod versions;

use std::sync::Arc;
use std::time::Duration;

use agrpo_spec::{ExecuteFn, Manifest, Numerics, Plan, RunId, StageDigest, StageKey, StageKind};
use agrpo_store::{JobsError, Store};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::runs::Runs;
use super::shared::Worker;
use super::*;
use crate::coordination::heartbeat::Heartbeat;
use crate::coordination::queue::Queue;
use crate::coordination::redis::Fleet;
use crate::coordinator::LogTail;
use crate::events::Event;
use crate::testing::run_fused;
use house::{House, expected_of, finish};

#[tokio::test]
async fn enqueue_offers_the_first_stage_once_and_says_when_nothing_is_left() {
    let house = House::new().await;
    let first = enqueue(&house.store, &house.fleet, house.run()).await.unwrap();
    let run = house.run().id();
    assert_eq!(first, Enqueued { run, pending: 1, already_done: false, namesakes: vec![] });
    assert_eq!(enqueue(&house.store, &house.fleet, house.run()).await.unwrap(), first);
    assert_eq!(house.waiting().await, 1, "a second request adds no second hint");
    finish(house.worker("one"), &house).await;
    let last = enqueue(&house.store, &house.fleet, house.run()).await.unwrap();
    assert_eq!((last.pending, last.already_done), (0, true));
    assert_eq!(house.waiting().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_worker_ends_where_one_process_ends_and_computes_each_stage_once() {
    let house = House::new().await;
    house.enqueue().await;
    finish(house.worker("one"), &house).await;
    assert_eq!(house.result().await, house.expected().await);
    assert_eq!(house.calls().values().sum::<u64>(), Plan::total_stages(&house.run()));
    let mut events = house.events();
    assert!(matches!(events.pop(), Some(Event::Done { run }) if run == house.run().id()));
    let count = |started: bool| {
        let kind = |event: &&Event| match event {
            Event::Started { .. } => started,
            Event::Settled { is_reused: false, .. } => !started,
            _ => false,
        };
        events.iter().filter(kind).count() as u64
    };
    assert_eq!((count(true), count(false)), (27, 27));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_worker_ends_and_leaves_only_what_outlives_runs() {
    let house = House::new().await;
    house.enqueue().await;
    let mut options = house.options("idle");
    options.exit_when_idle = Some(Duration::from_secs(1));
    house.serve(options).await.unwrap();
    assert_eq!(house.result().await, house.expected().await);
    let mut left = house.keys().await;
    // What expires by itself.
    left.retain(|key| !key.ends_with(":taken"));
    assert_eq!(left, ["epoch", "fence", "surveyed"].map(|name| house.fleet.keys.of(name)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_stopped_finishes_the_stage_in_hand() {
    // Longer than a worker may be silent: it has to show that it lives while it drains.
    let house = House::slow(Duration::from_millis(3500)).await;
    house.enqueue().await;
    let worker = house.worker("stopped");
    house.until_calls(1).await;
    worker.stop.send_replace(true);
    let mut other = house.options("bystander");
    other.exit_when_idle = Some(Duration::from_millis(2500));
    let (stopped, other) = tokio::join!(worker.end(), house.serve(other));
    stopped.unwrap();
    other.unwrap();
    assert_eq!(house.calls().values().max(), Some(&1));
    assert!(house.finished().await >= 1, "its result is published");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_takes_only_stages_of_its_class() {
    let house = House::new().await;
    house.enqueue().await;
    let mut options = house.options("gpu");
    options.numerics = Numerics::Cuda { sm: 90 };
    options.exit_when_idle = Some(Duration::from_millis(500));
    house.serve(options).await.unwrap();
    assert_eq!((house.calls().len(), house.waiting().await), (0, 1));
}

/// No stage waits for the reconciler: without it, the chain ends all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_stage_does_not_wait_for_the_reconciler() {
    let house = House::new().await;
    house.enqueue().await;
    let never = Duration::from_secs(3600);
    let options = WorkerOptions { reconcile: never, ..house.options("quick") };
    finish(house.worker_with(options), &house).await;
    assert_eq!(house.calls().values().sum::<u64>(), Plan::total_stages(&house.run()));
    assert_eq!(house.calls_of(StageKind::Update), 3);
}

/// The worker of the last rewards offers the updates of all shards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fused_updates_do_not_wait_for_the_reconciler() {
    for shards in [1, 3] {
        let (house, run) = (House::new().await, run_fused("fused", 4, shards));
        house.enqueue_run(run.clone()).await;
        let never = Duration::from_secs(3600);
        let worker =
            house.worker_with(WorkerOptions { reconcile: never, ..house.options("quick") });
        house.until_done_with(&run).await;
        worker.stop.send_replace(true);
        worker.end().await.unwrap();
        assert_eq!(house.calls().values().sum::<u64>(), Plan::total_stages(&run));
        assert_eq!(house.calls_of(StageKind::Updates), 4);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_workers_end_a_run_of_fused_updates_and_compute_each_stage_once() {
    let (house, run) = (House::slow(Duration::from_millis(10)).await, run_fused("fused", 4, 3));
    house.enqueue_run(run.clone()).await;
    let workers = ["one", "two"].map(|name| house.worker(name));
    house.until_done_with(&run).await;
    for worker in workers {
        worker.stop.send_replace(true);
        worker.end().await.unwrap();
    }
    assert_eq!(house.result_of(&run).await, expected_of(&run).await);
    assert_eq!(house.calls().values().max(), Some(&1));
    assert_eq!((house.calls_of(StageKind::Updates), house.calls_of(StageKind::Gradient)), (4, 0));
}
