//! What is queued, how much of it, and in which order.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use agrpo_spec::{ArtifactDigest, Plan, RunId};

use super::house::{House, expected_of, finish};
use super::*;
use crate::coordination::queue::{Hint, MOST_READY};
use crate::testing::{run_named, run_of, run_seeded};

/// What was begun, in order.
fn begun(house: &House) -> Vec<(RunId, StageKey)> {
    let begun = |event| match event {
        Event::Started { run, key, .. } => Some((run, key)),
        _ => None,
    };
    house.events().into_iter().filter_map(begun).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wide_run_is_queued_an_iteration_at_a_time_and_begun_in_the_order_of_its_plan() {
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
    assert!((2..=42).contains(&most), "no more than 40 shards and what is beside them, not {most}");
    assert_eq!(house.result_of(&run).await, expected_of(&run).await);
    let keys: Vec<StageKey> = begun(&house).into_iter().map(|(_, key)| key).collect();
    let of = |kind, iteration| {
        let keys = keys.iter().filter(move |key| key.kind == kind && key.iteration == iteration);
        keys.map(StageKey::shard_number).collect::<Vec<_>>()
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
    let is_reused = |event: &Event| matches!(event, Event::Settled { is_reused: true, .. });
    house
        .until("its result to be taken over", async || {
            events.extend(house.events());
            events.iter().any(is_reused)
        })
        .await;
    worker.stop.send_replace(true);
    worker.end().await.unwrap();
    events.extend(house.events());
    let is_begun = |event: &Event| matches!(event, Event::Started { .. });
    assert!(!events.iter().any(is_begun), "{events:?}");
    assert_eq!(house.calls().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_comes_later_has_its_share_at_once() {
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
    // as both have work, no run is far ahead of the other.
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
async fn runs_take_turns_and_each_keeps_its_order() {
    let house = House::new().await;
    let queue = house.queue(Numerics::CpuPortable);
    let stage = |i: u32| {
        let key = StageKey::new(StageKind::Rollout, 1, i);
        (key, ArtifactDigest::of(&i.to_le_bytes()).to_string().parse::<StageDigest>().unwrap())
    };
    let runs: Vec<RunId> = (1..=3).map(|i| run_named("wide", i).id()).collect();
    for (&run, first) in runs.iter().zip([0, 3000, 6000]) {
        assert_eq!(queue.offer(run, (first..first + 3000).map(stage)).await.unwrap(), 3000);
    }
    assert_eq!(house.waiting().await, 9000);
    for round in 0..3 {
        for (&run, first) in runs.iter().zip([0, 3000, 6000]) {
            let (key, stage) = stage(first + round);
            assert_eq!(queue.take().await.unwrap(), Some(Hint { run, key, stage }));
        }
    }
    // One that is given back keeps its place; one that a worker computes is not taken again.
    let next = queue.take().await.unwrap().unwrap();
    queue.release(next).await.unwrap();
    queue.release(queue.take().await.unwrap().unwrap()).await.unwrap();
    let computed = house.fleet.keys.lease(next.stage);
    assert_eq!(house.waiting().await, 9000 - 9);
    house.redis_says::<()>(&["SET", &computed, "9 another", "PX", "60000"]).await;
    let taken = async || queue.take().await.unwrap().unwrap();
    let stages = [taken().await.stage, taken().await.stage, taken().await.stage];
    assert!(!stages.contains(&next.stage), "{stages:?}");

    let few = house.queue(Numerics::Cuda { sm: 90 });
    let most = u32::try_from(MOST_READY).unwrap();
    assert_eq!(few.offer(runs[0], (0..most + 9).map(stage)).await.unwrap(), MOST_READY);
}

#[tokio::test]
async fn what_a_person_holds_is_not_taken() {
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
    assert_eq!(house.queue(Numerics::CpuPortable).take().await.unwrap(), None);
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
    // Half of the stages are done, and the reconciler has had time to: its turns come late on a busy machine.
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

#[tokio::test]
async fn runs_of_one_name_and_other_content_are_distinguished() {
    let house = House::new().await;
    let (first, second) = (run_named("twin", 2), run_named("twin", 3));
    assert_eq!(house.enqueue_run(first.clone()).await.namesakes, []);
    assert_eq!(house.enqueue_run(second.clone()).await.namesakes, [first.id()]);
    assert_eq!(house.enqueue_run(first).await.namesakes, [second.id()]);
}
