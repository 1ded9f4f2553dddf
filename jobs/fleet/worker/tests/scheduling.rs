//! What is queued, how much of it, and in which order.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use agrpo_spec::{ArtifactDigest, Plan, RunId};

use super::house::{House, expected_of, finish};
use super::*;
use crate::coordination::queue::Hint;
use crate::testing::{run_named, run_of, run_seeded};
use agrpo_store::Versions;

/// What was begun, in order.
fn begun(house: &House) -> Vec<(RunId, StageKey)> {
    let begun = |event| match event {
        WorkerEvent::Started { run, key, .. } => Some((run, key)),
        _ => None,
    };
    house.events().into_iter().filter_map(begun).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wide_run_is_queued_a_window_at_a_time_and_begun_in_the_order_of_its_plan() {
    let house = House::slow(Duration::from_millis(5)).await;
    let run = run_of("wide", 2, 40);
    house.enqueue_run(run.clone()).await;
    let worker = house.worker("one");
    let mut most = 0;
    house
        .until("both updates", async || {
            most = most.max(house.waiting().await);
            house.calls_of(agrpo_spec::StageKind::Update) == 2
        })
        .await;
    house.until_done_with(&run).await;
    worker.stop.send_replace(true);
    worker.end().await.unwrap();
    assert!((2..=4).contains(&most), "one worker has a window of four, not {most}");
    assert_eq!(house.result_of(&run).await, expected_of(&run).await);
    let keys: Vec<StageKey> = begun(&house).into_iter().map(|(_, key)| key).collect();
    let of = |kind, iteration| {
        let keys = keys.iter().filter(move |key| key.kind == kind && key.iteration == iteration);
        keys.map(|key| key.shard).collect::<Vec<_>>()
    };
    for iteration in 1..=2 {
        let kinds =
            [StageKind::Rollout, StageKind::Reward, StageKind::Gradient].map(|k| of(k, iteration));
        for shards in kinds {
            assert_eq!(shards, (0..40).collect::<Vec<_>>(), "in the order of shards");
        }
    }
    assert_eq!(keys.len() as u64, Plan::total_stages(&run));
}

/// Who offers a stage may have looked before it was published: under load that takes seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_that_was_published_since_it_was_offered_is_not_begun_again() {
    let house = House::new().await;
    house.enqueue().await;
    assert_eq!(house.waiting().await, 1);
    crate::testing::finished(&house.store, house.run(), 1).await;
    let worker = house.worker("late");
    let mut events = vec![];
    let is_reused = |event: &WorkerEvent| matches!(event, WorkerEvent::Reused { .. });
    house
        .until("its result to be taken over", async || {
            events.extend(house.events());
            events.iter().any(is_reused)
        })
        .await;
    worker.stop.send_replace(true);
    worker.end().await.unwrap();
    events.extend(house.events());
    let is_begun = |event: &WorkerEvent| matches!(event, WorkerEvent::Started { .. });
    assert!(!events.iter().any(is_begun), "{events:?}");
    assert_eq!(house.calls().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_comes_later_waits_for_a_window_and_then_has_its_share() {
    let house = House::slow(Duration::from_millis(10)).await;
    let (first, second) = (run_of("first", 1, 30), run_seeded("second", 1, 30, 4));
    house.enqueue_run(first.clone()).await;
    let worker = house.worker("slow");
    house.until_calls(10).await;
    house.enqueue_run(second.clone()).await;
    house.until_done_with(&second).await;
    house.until_done_with(&first).await;
    worker.stop.send_replace(true);
    worker.end().await.unwrap();
    let begun = begun(&house);
    let order: Vec<RunId> = begun.iter().map(|(run, _)| *run).collect();
    let came = order.iter().position(|&run| run == second.id()).unwrap();
    assert!(came <= 10 + 6, "the newcomer began after {came} stages");
    // Its fine-tuning is a chain, so it can only take its share once it samples. From there on, as long
    // as both have work, no run is a window ahead of the other.
    let sampling =
        |&(run, key): &(RunId, StageKey)| run == second.id() && key.kind == StageKind::Rollout;
    let came = begun.iter().position(sampling).unwrap();
    let (mut ahead, mut most) = (0_i32, 0_i32);
    for (place, &(run, key)) in begun.iter().enumerate().skip(came) {
        ahead += if run == first.id() { 1 } else { -1 };
        most = most.max(ahead.abs());
        // After its last gradient a run has no work until all of them are published.
        let is_like = |of: &(RunId, StageKey)| of.0 == run && of.1.kind == key.kind;
        let so_far = begun[..=place].iter().filter(|of| is_like(of)).count();
        if key.kind == StageKind::Gradient && so_far == 30 {
            break;
        }
    }
    assert!(most <= 4, "one run was {most} stages ahead");
    for run in [first, second] {
        assert_eq!(house.result_of(&run).await, expected_of(&run).await);
    }
}

#[tokio::test]
async fn the_window_of_a_run_follows_the_number_of_workers_and_no_queue_overflows() {
    let house = House::new().await;
    let queue = house.queue(Numerics::CpuPortable);
    let stage = |i: u32| {
        let key = StageKey::new(StageKind::Rollout, 1, i);
        (key, ArtifactDigest::of(&i.to_le_bytes()).to_string().parse::<StageDigest>().unwrap())
    };
    let runs: Vec<RunId> = (1..=3).map(|i| run_named("wide", i).id()).collect();
    queue.offer(runs[0], (0..3000).map(stage)).await.unwrap();
    assert_eq!(house.waiting().await, 4);
    let name = house.queue_name();
    for worker in 0..5000 {
        let worker = format!("w{worker}");
        house.redis_says::<()>(&["ZADD", &format!("{name}:workers"), "1", &worker]).await;
    }
    queue.offer(runs[1], (3000..6000).map(stage)).await.unwrap();
    queue.offer(runs[2], (6000..9000).map(stage)).await.unwrap();
    assert_eq!(house.waiting().await, crate::coordination::queue::MOST_TASKS);
    // One is taken, another one comes, and it is the first that has not come yet.
    let hint = Hint { run: runs[0], stage: stage(0).1 };
    house.redis_says::<()>(&["LPOP", &format!("{name}:active")]).await;
    assert_eq!(queue.take(hint).await.unwrap(), Some(stage(0).0));
    assert_eq!(house.waiting().await, crate::coordination::queue::MOST_TASKS);
}

#[tokio::test]
async fn what_a_person_holds_is_not_queued() {
    let house = House::new().await;
    house
        .redis_says::<()>(&[
            "HSET",
            &house.fleet.keys.of("held"),
            &house.run().id().to_string(),
            "paused",
        ])
        .await;
    house.enqueue().await;
    assert_eq!(house.waiting().await, 0);
    house.redis_says::<()>(&["DEL", &house.fleet.keys.of("held")]).await;
    finish(house.worker("freed"), &house).await;
    assert_eq!(house.result().await, house.expected().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_keeps_nothing_of_stages_that_are_done() {
    let run = run_of("long", 30, 2);
    let (half, goes_on) = (Plan::total_stages(&run) / 2, Arc::new(AtomicBool::new(false)));
    let (begun, lets_go) = (AtomicU64::new(0), Arc::clone(&goes_on));
    let house = House::with(move |_, _| {
        let is_late = begun.fetch_add(1, Ordering::SeqCst) >= half;
        while is_late && !lets_go.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    })
    .await;
    house.enqueue_run(run.clone()).await;
    let workers = ["a", "b"].map(|name| house.worker(name));
    // Half of the stages are done, and the reconciler has had time to: sweeps come late on a busy machine.
    house.until_calls(half + 1).await;
    house.until("few keys to be left", async || house.keys().await.len() < 60).await;
    goes_on.store(true, Ordering::SeqCst);
    house.until_done_with(&run).await;
    for worker in workers {
        worker.stop.send_replace(true);
        worker.end().await.unwrap();
    }
    assert_eq!(house.result_of(&run).await, expected_of(&run).await);
}

/// Classes of numerics share a Redis, and one worker of all sweeps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_sweeps_tidies_after_workers_of_other_classes() {
    let house = House::new().await;
    let run = run_of("portable", 12, 2);
    let numerics = Numerics::CpuNative;
    let sweeper = house.worker_with(WorkerOptions { numerics, ..house.options("native") });
    let lease = house.fleet.keys.sweeper(&Versions::own());
    let leases = ["EXISTS", &*lease];
    house.until("it to sweep", async || house.redis_says::<bool>(&leases).await).await;
    house.enqueue_run(run.clone()).await;
    let never = Duration::from_secs(3600);
    let options = WorkerOptions { sweep: never, ..house.options("portable") };
    let worker = house.worker_with(options);
    house.until_done_with(&run).await;
    let finished = format!("{}:done", house.queue_name());
    house
        .until("what is finished to be forgotten", async || {
            house.redis_says::<u64>(&["SCARD", &finished]).await == 0
        })
        .await;
    for worker in [sweeper, worker] {
        worker.stop.send_replace(true);
        worker.end().await.unwrap();
    }
}

#[tokio::test]
async fn runs_of_one_name_and_other_content_are_told_apart() {
    let house = House::new().await;
    let (first, second) = (run_named("twin", 2), run_named("twin", 3));
    assert_eq!(house.enqueue_run(first.clone()).await.namesakes, []);
    assert_eq!(house.enqueue_run(second.clone()).await.namesakes, [first.id()]);
    assert_eq!(house.enqueue_run(first).await.namesakes, [second.id()]);
}
