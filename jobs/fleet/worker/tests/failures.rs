//! What fails is tried again where that may help, and ends in a record that a person can read.

use std::sync::atomic::{AtomicBool, Ordering};

use agrpo_spec::{StageError, StageKind};
use tokio::time::sleep;

use super::house::{House, finish};
use super::*;
use crate::control::retry;
use crate::coordinator::Attempt;
use crate::status::{RunState, status};
use crate::testing;
use agrpo_store::Remedy;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_that_refuses_its_spec_fails_at_once_and_retry_gives_new_attempts() {
    let cured = Arc::new(AtomicBool::new(false));
    let is_cured = Arc::clone(&cured);
    let house = House::with(move |spec, _| match spec.kind() {
        StageKind::Update if !is_cured.load(Ordering::SeqCst) => {
            Err(StageError::Invalid("no such optimizer".into()))
        }
        _ => Ok(()),
    })
    .await;
    let (id, options) = (house.run().id(), house.options("careful"));
    let log_tail: LogTail = Arc::new(|since| vec![format!("since {}", since > 0)]);
    house.enqueue().await;
    let worker = house.worker_with(WorkerOptions { log_tail, ..options });
    house
        .until("a failure", async || !house.store.records.failures(id).await.unwrap().is_empty())
        .await;
    let failure = house.store.records.failures(id).await.unwrap().remove(0);
    assert_eq!((failure.attempts, failure.remedy), (1, Remedy::Never));
    assert!(failure.error.contains("no such optimizer"), "{failure:?}");
    assert_eq!(failure.log, ["since true"]);
    assert_eq!(failure.environment.worker, "test");
    assert!(failure.environment.started_unix_ms > 0);
    assert_eq!(house.calls_of(StageKind::Update), 1);

    let shown = status(&house.store, Some(id)).await.unwrap().remove(0);
    let failed = shown.failed_at.unwrap();
    assert_eq!((shown.state, failed.key), (RunState::Failed, failure.key));
    assert_eq!(failed.error, failure.error);

    cured.store(true, Ordering::SeqCst);
    let cleared = retry(&house.store, Some(&house.fleet), id).await.unwrap();
    assert_eq!(cleared, [failure.stage]);
    finish(worker, &house).await;
    assert_eq!(house.result().await, house.expected().await);
    assert!(retry(&house.store, Some(&house.fleet), id).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_runs_go_on_beside_one_that_failed() {
    let other = testing::run_named("doomed", 1);
    let doomed = other.config().seed + 1;
    let config = agrpo_spec::RunConfig { seed: doomed, ..other.config().clone() };
    let other = agrpo_spec::Run::resolve(config).unwrap();
    let first = agrpo_spec::Plan::new(other.clone()).pending().values().next().unwrap().digest();
    let house = House::with(move |spec, _| {
        if spec.digest() == first {
            return Err(StageError::Internal("out of memory".into()));
        }
        Ok(())
    })
    .await;
    enqueue(&house.store, &house.fleet, other.clone()).await.unwrap();
    house.enqueue().await;
    finish(house.worker("even-handed"), &house).await;
    assert_eq!(house.result().await, house.expected().await);
    let failures = house.store.records.failures(other.id()).await.unwrap();
    assert_eq!((failures.len(), failures[0].attempts), (1, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_that_failed_here_waits_for_others_while_there_are_any() {
    let house = House::with(|spec, begun| match (spec.kind(), begun) {
        (StageKind::Reward, 1) => Err(StageError::Internal("out of memory".into())),
        _ => Ok(()),
    })
    .await;
    house.enqueue().await;
    let elsewhere = Duration::from_secs(3600);
    // Alive, of the same class, and never there to take anything.
    let other =
        Heartbeat::start(&house.fleet, house.options("other").heartbeat_settings()).await.unwrap();
    let worker = house.worker_with(WorkerOptions { elsewhere, ..house.options("first") });
    house.until("the failures", async || house.calls_of(StageKind::Reward) == 2).await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(house.calls_of(StageKind::Reward), 2, "both shards were tried here once");
    other.sign_off().await;
    // A lone worker does try again.
    finish(worker, &house).await;
    assert_eq!(house.result().await, house.expected().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_device_is_lost_ends_for_its_supervisor() {
    let lost = AtomicBool::new(true);
    let house = House::with(move |spec, _| {
        if spec.kind() == StageKind::Rollout && lost.swap(false, Ordering::SeqCst) {
            return Err(StageError::Device("CUDA error: lost".into()));
        }
        Ok(())
    })
    .await;
    house.enqueue().await;
    let error = house.worker("broken").end().await.unwrap_err();
    assert!(matches!(error, JobsError::Device(_)));
    assert!(error.to_string().contains("CUDA error: lost"), "{error}");
    finish(house.worker("next"), &house).await;
    assert_eq!(house.result().await, house.expected().await);
}

/// What went wrong first is what ends the worker and what is read; what goes wrong on the way out is logged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_of_the_store_is_reported_though_redis_fails_too() {
    let mut house = House::new().await;
    house.enqueue().await;
    let worker = house.parts("unlucky").await;
    let pending = house.specs().await.remove(0);
    let lease = worker.heartbeat.acquire(pending.stage, "run").await.unwrap().unwrap();
    let attempt = Attempt::new(house.run().id(), pending, lease, testing::environment());
    house.redis.kill();
    for first in [
        JobsError::Unavailable("the bucket is away".into()),
        JobsError::Invalid("the bucket refuses us".into()),
        JobsError::Device("the device is lost".into()),
    ] {
        let failed = worker.failed(&attempt, first.clone()).await.unwrap_err();
        assert_eq!(format!("{failed:?}"), format!("{first:?}"));
    }
    let both = |text: &str| Err(JobsError::Unavailable(text.into()));
    let message = crate::executor::first_of(both("first"), both("second")).unwrap_err();
    assert_eq!(message.to_string(), "first");
}
