//! Programs of two releases at one Redis: who takes what, and what becomes of a run that changes hands.

use agrpo_spec::{ArtifactDigest, Plan};
use tokio::time::sleep;

use super::house::{House, finish};
use super::*;
use crate::control;
use crate::testing::{hold, other_versions};
use agrpo_store::Hold;
use agrpo_store::Versions;

/// A worker of another release.
fn foreign(house: &House, name: &str) -> house::WorkerHandle {
    house.worker_with(WorkerOptions { versions: other_versions(), ..house.options(name) })
}

fn queue_of(house: &House, versions: &Versions) -> Queue {
    Queue::new(&house.fleet, Numerics::CpuPortable, versions)
}

/// Why workers left runs to others, since the last time.
fn said(house: &House) -> Vec<String> {
    let why = |event| match event {
        Event::Incompatible { why, .. } => Some(why),
        _ => None,
    };
    house.events().into_iter().filter_map(why).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_of_another_release_take_no_hint_and_say_once_that_they_leave_the_run() {
    let house = House::slow(Duration::from_millis(20)).await;
    let others = ["next", "next"].map(|name| foreign(&house, name));
    house.enqueue().await;
    let mut reasons = vec![];
    house
        .until("both to say so", async || {
            reasons.append(&mut said(&house));
            reasons.len() == 2
        })
        .await;
    assert!(reasons.iter().all(|why| why.contains("this program has version 99")), "{reasons:?}");
    // Several turns of their reconciler later.
    sleep(Duration::from_secs(1)).await;
    assert_eq!((house.waiting().await, house.calls().len()), (1, 0));
    // No reconciler would give it a hint that another worker has dropped.
    let never = Duration::from_secs(3600);
    finish(house.worker_with(WorkerOptions { reconcile: never, ..house.options("ours") }), &house)
        .await;
    for other in others {
        other.stop.send_replace(true);
        other.end().await.unwrap();
    }
    assert_eq!(said(&house), [""; 0], "once is enough");
    let stages = Plan::total_stages(&house.run());
    let taken =
        format!("{}:taken", house.fleet.keys.queue(Numerics::CpuPortable, &other_versions()));
    assert!(!house.redis_says::<bool>(&["EXISTS", &taken]).await);
    assert_eq!(house.calls().values().sum::<u64>(), stages);
    assert_eq!(house.result().await, house.expected().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_of_another_release_goes_on_here_at_once_and_its_old_hints_do_no_harm() {
    let house = House::new().await;
    let run = house.run().id();
    let stage = |i: u32| {
        let key = StageKey::new(agrpo_spec::StageKind::Rollout, 1, i);
        (key, ArtifactDigest::of(&i.to_le_bytes()).to_string().parse::<StageDigest>().unwrap())
    };
    // Another release began it; more of its stages are ready.
    house.store.records.put_run(&house.run()).await.unwrap();
    house.objects.pin_other_versions(run).await;
    let old = queue_of(&house, &other_versions());
    old.offer(run, (0..50).map(stage)).await.unwrap();
    assert_eq!(old.waiting().await.unwrap(), 50);
    house.enqueue().await;
    assert_eq!(old.waiting().await.unwrap(), 0, "what was ready is withdrawn");
    // A worker of that release that does not know it yet.
    old.offer(run, (0..4).map(stage)).await.unwrap();
    let never = Duration::from_secs(3600);
    finish(house.worker_with(WorkerOptions { reconcile: never, ..house.options("ours") }), &house)
        .await;
    assert_eq!(house.result().await, house.expected().await);
    let calls = house.calls();
    let other = foreign(&house, "late");
    house.until("its hints to be dropped", async || old.waiting().await.unwrap() == 0).await;
    sleep(Duration::from_millis(500)).await;
    other.stop.send_replace(true);
    other.end().await.unwrap();
    assert_eq!((house.calls(), said(&house).len()), (calls, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resuming_a_run_of_another_release_leaves_its_plan_to_that_release() {
    let house = House::new().await;
    let run = house.run().id();
    house.store.records.put_run(&house.run()).await.unwrap();
    house.objects.pin_other_versions(run).await;
    hold(&house.store, run, Hold::Paused).await;
    assert!(control::resume(&house.store, Some(&house.fleet), run).await.unwrap());
    assert_eq!(house.waiting().await, 0);
    let active: Vec<String> = house.redis_says(&["SMEMBERS", &house.fleet.keys.of("active")]).await;
    assert_eq!(active, [run.to_string()], "its own reconciler looks after it");
    let other = foreign(&house, "its own");
    house.until("a stage to be begun", async || !house.calls().is_empty()).await;
    other.stop.send_replace(true);
    other.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_whose_record_another_version_wrote_waits_and_the_others_go_on() {
    let house = House::new().await;
    house.enqueue().await;
    finish(house.worker("first"), &house).await;
    // A newer program wrote a record that the next run shares, and more of what it says.
    let (key, run) = ("sft-000001".parse().unwrap(), house.run().id());
    let stage = house.store.records.recorded_stages(run).await.unwrap()[&key];
    let manifest = house.store.records.manifest(stage).await.unwrap().unwrap();
    let mut more = serde_json::to_value(&manifest).unwrap();
    more["priority"] = 7.into();
    let (name, newer) = (format!("stages/{stage}"), agrpo_spec::record::seal(&more));
    house.objects.put(&name, newer.clone()).await;
    let shares = crate::testing::run_named("shares", 1);
    let apart = crate::testing::run_seeded("apart", 1, 2, 9);
    house.store.records.put_run(&shares).await.unwrap();
    house.store.records.versions(shares.id()).await.unwrap();
    crate::coordination::runs::set_active(&house.fleet, shares.id(), true).await.unwrap();
    house.enqueue_run(apart.clone()).await;
    drop(said(&house));
    let worker = house.worker("second");
    house.until_done_with(&apart).await;
    let mut reasons = vec![];
    house
        .until("it to be said", async || {
            reasons.append(&mut said(&house));
            !reasons.is_empty()
        })
        .await;
    // Several turns of the reconciler later.
    sleep(Duration::from_secs(1)).await;
    reasons.append(&mut said(&house));
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    assert!(
        reasons[0].starts_with(&name) && reasons[0].contains("unknown field `priority`"),
        "{reasons:?}"
    );
    worker.stop.send_replace(true);
    worker.end().await.unwrap();
    assert_eq!(house.objects.get(&name).await.unwrap(), newer);
    assert_eq!(house.objects.names("aside").await, [""; 0]);
    assert!(house.store.records.failures(shares.id()).await.unwrap().is_empty());
    let active = house.fleet.keys.of(crate::coordination::keys::ACTIVE);
    let active: Vec<String> = house.redis_says(&["SMEMBERS", &active]).await;
    assert_eq!(active, [shares.id().to_string()], "it waits for a program that knows the record");
}
