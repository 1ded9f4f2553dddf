//! Whatever breaks costs time and nothing else; what cannot succeed ends in a readable failure.

use agrpo_spec::{StageError, StageKind};
use tokio::time::sleep;

use super::house::{House, finish};
use super::*;
use crate::testing::{self, RedisServer};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_redis_costs_only_time() {
    let house = House::slow(Duration::from_millis(50)).await;
    house.enqueue().await;
    let workers = ["a", "b"].map(|name| house.supervised(name));
    for calls in [5, 12] {
        house.until_calls(calls).await;
        house.redis_says::<()>(&["FLUSHALL"]).await;
    }
    house.until_done().await;
    for worker in workers {
        worker.stop.send_replace(true);
        worker.end().await.unwrap();
    }
    assert_eq!(house.result().await, house.expected().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_vanishes_is_taken_over() {
    let house = House::slow(Duration::from_millis(200)).await;
    house.enqueue().await;
    let victim = house.worker("victim");
    house.until_calls(4).await;
    let heir = house.worker("heir");
    victim.crash().await;
    finish(heir, &house).await;
    assert_eq!(house.result().await, house.expected().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_without_redis_for_too_long_ends_and_loses_no_stage_that_is_computed() {
    // The time to retry is over while it computes, and while it waits for the answer about its lease.
    for (seconds, published) in [(1, 0), (5, 1)] {
        let mut house = House::slow(Duration::from_secs(2)).await;
        house.enqueue().await;
        let retry_for = Duration::from_secs(seconds);
        let worker = house.worker_with(WorkerOptions { retry_for, ..house.options("cut-off") });
        house.until_calls(1).await;
        house.redis = RedisServer::start(&[]);
        let error = worker.end().await.unwrap_err();
        assert!(matches!(error, JobsError::Unavailable(_)), "{error}");
        assert!(error.to_string().contains(house.fleet.address()), "{error}");
        sleep(Duration::from_secs(2)).await;
        assert_eq!(house.finished().await, published);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_that_fails_twice_is_tried_a_third_time() {
    let house = House::with(|spec, begun| match (spec.kind(), begun) {
        (StageKind::Reward, 1) => panic!("a defect"),
        (StageKind::Update, 1..=2) => Err(StageError::Internal("out of memory".into())),
        _ => Ok(()),
    })
    .await;
    house.enqueue().await;
    finish(house.worker("patient"), &house).await;
    assert_eq!(house.result().await, house.expected().await);
    assert_eq!(house.redis_says::<u64>(&["HLEN", &house.fleet.keys.of("attempts")]).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_that_always_fails_ends_in_a_record_until_it_is_enqueued_again() {
    let cured = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_cured = Arc::clone(&cured);
    let house = House::with(move |spec, _| match spec.kind() {
        StageKind::Update if !is_cured.load(std::sync::atomic::Ordering::SeqCst) => {
            Err(StageError::Internal("needs more memory".into()))
        }
        _ => Ok(()),
    })
    .await;
    house.enqueue().await;
    let worker = house.worker("failing");
    let id = house.run().id();
    house
        .until("a failure", async || !house.store.records.failures(id).await.unwrap().is_empty())
        .await;
    let failures = house.store.records.failures(id).await.unwrap();
    assert_eq!((failures.len(), failures[0].attempts), (1, 3));
    assert!(failures[0].error.contains("needs more memory"), "{:?}", failures[0]);
    assert!(failures[0].worker.starts_with("failing"));
    // Several turns and surveys later it was not tried again, by this worker or by a new one.
    sleep(Duration::from_millis(1500)).await;
    let second = house.worker("newcomer");
    sleep(Duration::from_millis(1500)).await;
    assert_eq!(house.calls_of(StageKind::Update), 3);
    cured.store(true, std::sync::atomic::Ordering::SeqCst);
    house.enqueue().await;
    finish(worker, &house).await;
    second.stop.send_replace(true);
    second.end().await.unwrap();
    assert_eq!(house.result().await, house.expected().await);
    assert!(house.store.records.failures(id).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_that_kills_every_worker_ends_in_a_record() {
    let house = House::slow(Duration::from_secs(4)).await;
    house.enqueue().await;
    for starts in 1..=3 {
        let victim = house.worker("victim");
        house.until_calls(starts).await;
        victim.crash().await;
    }
    let survivor = house.worker("survivor");
    let id = house.run().id();
    house
        .until("a failure", async || !house.store.records.failures(id).await.unwrap().is_empty())
        .await;
    let failure = house.store.records.failures(id).await.unwrap().remove(0);
    assert_eq!(failure.attempts, 3);
    assert!(failure.error.contains("ended without a result"), "{failure:?}");
    assert_eq!(house.calls_of(StageKind::Sft), 3);
    survivor.stop.send_replace(true);
    survivor.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_stalls_is_waited_for() {
    let house = House::slow(Duration::from_millis(30)).await;
    house.enqueue().await;
    let usual = WorkerOptions::new(
        Numerics::CpuPortable,
        "patient".to_owned(),
        testing::environment(),
        testing::real_clock(),
    );
    let worker = house.worker_with(usual);
    house.until_calls(3).await;
    house.redis_says::<()>(&["CLIENT", "PAUSE", "3000"]).await;
    finish(worker, &house).await;
    assert_eq!(house.calls().values().max(), Some(&1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_on_another_store_than_the_run_names_its_store_and_the_setting() {
    let house = House::new().await;
    let first = *house.pending().await.first().unwrap();
    let queue = house.queue(Numerics::CpuPortable);
    queue.offer(house.run().id(), [first]).await.unwrap();
    let mut options = house.options("puzzled");
    options.exit_when_idle = Some(Duration::from_secs(1));
    house.serve(options).await.unwrap();
    let reported = house.events().into_iter().find_map(|event| match event {
        Event::Unreadable { error, .. } => Some(error),
        _ => None,
    });
    let reported = reported.unwrap();
    for part in ["memory://", "does not hold run", "AGRPO_STORE or --store"] {
        assert!(reported.contains(part), "{reported}");
    }
    assert_eq!(house.store.records.runs().await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_and_damaged_entries_of_the_queue_do_no_harm() {
    let house = House::new().await;
    let queue = house.queue_name();
    let (run, (key, stage)) = (house.run().id().to_string(), house.pending().await[0]);
    for owner in [&run, "foreign"] {
        let ready = format!("{queue}:ready:{owner}");
        for entry in ["foreign", "0 damaged", &format!("0 {key} {}", &stage.to_string()[1..])] {
            house.redis_says::<()>(&["ZADD", &ready, "-1", entry]).await;
        }
        house.redis_says::<()>(&["ZADD", &format!("{queue}:turns"), "0", owner]).await;
    }
    house.enqueue().await;
    finish(house.supervised("sturdy"), &house).await;
    assert_eq!(house.result().await, house.expected().await);
    assert_eq!(house.redis_says::<u64>(&["EXISTS", &format!("{queue}:turns")]).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hint_that_got_lost_is_offered_again() {
    let house = House::new().await;
    let lazy = WorkerOptions { poll: Duration::from_secs(1), ..house.options("lazy") };
    let worker = house.worker_with(lazy);
    house.until("the worker", async || !house.keys().await.is_empty()).await;
    sleep(Duration::from_millis(500)).await;
    house.enqueue().await;
    let queue = house.queue_name();
    let ready = format!("{queue}:ready:{}", house.run().id());
    house.redis_says::<()>(&["DEL", &ready, &format!("{queue}:turns")]).await;
    finish(worker, &house).await;
    assert_eq!(house.result().await, house.expected().await);
}
