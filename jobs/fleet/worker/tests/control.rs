//! Runs that are paused, cancelled and resumed, workers that drain, and the registry of workers.

use agrpo_spec::{Plan, StageKind};
use tokio::time::sleep;

use super::house::{House, finish, finish_once};
use super::loss::gated_start;
use super::*;
use crate::control::{hold, resume};
use crate::status::{RunState, status};
use crate::testing::{TestStore, finished, repairs, run, throttled};
use agrpo_store::{Control, Hold};

fn by_anna(state: Hold) -> Control {
    Control { state, unix_ms: 7, by: "anna".to_owned() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_run_stands_still_within_two_seconds_until_it_is_resumed() {
    let house = House::slow(Duration::from_millis(100)).await;
    let (store, id) = (&house.store, house.run().id());
    house.enqueue().await;
    let workers = ["a", "b"].map(|name| house.worker(name));
    house.until_calls(4).await;
    hold(store, Some(&house.fleet), id, &by_anna(Hold::Paused)).await.unwrap();
    sleep(Duration::from_secs(2)).await;
    let begun = house.calls();
    sleep(Duration::from_secs(2)).await;
    assert_eq!(house.calls(), begun, "no stage was begun");
    assert_eq!(status(store, Some(id)).await.unwrap()[0].state, RunState::Paused);
    assert_eq!(store.records.control(id).await.unwrap(), Some(by_anna(Hold::Paused)));
    // Asking for it again does not lift a pause.
    house.enqueue().await;
    assert!(resume(store, Some(&house.fleet), id).await.unwrap());
    assert!(!resume(store, Some(&house.fleet), id).await.unwrap(), "it was not paused");
    finish_once(workers, &house).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_run_begins_nothing_until_it_is_enqueued_again() {
    let house = House::new().await;
    let id = house.run().id();
    house.enqueue().await;
    hold(&house.store, Some(&house.fleet), id, &by_anna(Hold::Cancelled)).await.unwrap();
    let worker = house.worker("obedient");
    sleep(Duration::from_secs(2)).await;
    assert!(house.calls().is_empty());
    assert_eq!(status(&house.store, Some(id)).await.unwrap()[0].state, RunState::Cancelled);
    house.enqueue().await;
    finish(worker, &house).await;
    let paused = hold(&house.store, Some(&house.fleet), id, &by_anna(Hold::Paused)).await;
    assert!(!paused.unwrap(), "a run that is done stays as it is");
    assert_eq!(house.store.records.control(id).await.unwrap(), None);
    assert_eq!(status(&house.store, Some(id)).await.unwrap()[0].state, RunState::Done);
}

#[tokio::test]
async fn a_run_that_status_calls_done_is_not_paused_and_nothing_of_it_is_moved() {
    let test = TestStore::file().await;
    let id = run().id();
    finished(&test.store, run(), 1).await;
    let index = test.store.records.recorded_stages(id).await.unwrap();
    let (_, stage) = index.iter().rfind(|(key, _)| key.kind == StageKind::Evaluation).unwrap();
    test.truncate(&format!("stages/{stage}"));
    let store = test.reopened();
    assert_eq!(status(&store, Some(id)).await.unwrap()[0].state, RunState::Done);
    assert!(!hold(&store, None, id, &by_anna(Hold::Paused)).await.unwrap());
    assert_eq!(store.records.control(id).await.unwrap(), None);
    assert!(test.path(&format!("stages/{stage}")).exists());
    assert!(repairs(&store, id).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_gives_the_stage_back_when_its_time_is_over_and_publishes_nothing() {
    for hurried in [false, true] {
        let (house, gate) = gated_start().await;
        house.enqueue().await;
        let (hurry, hurrying) = watch::channel(false);
        let grace = (!hurried).then_some(Duration::from_millis(500));
        let first =
            house.worker_with(WorkerOptions { grace, hurry: hurrying, ..house.options("drained") });
        house.until_calls(1).await;
        first.stop.send_replace(true);
        hurry.send_replace(hurried);
        // Its stage is still being computed.
        first.end().await.unwrap();
        assert_eq!(house.finished().await, 0);
        let (_, stage) = *house.pending().await.first().unwrap();
        assert_eq!(house.waiting().await, 1, "it is offered again");
        let lease = house.fleet.keys.lease(stage);
        assert!(!house.redis_says::<bool>(&["EXISTS", &lease]).await, "its lease is released");
        let attempts = house.fleet.keys.of("attempts");
        let attempts: u64 = house.redis_says(&["HGET", &attempts, &stage.to_string()]).await;
        assert_eq!(attempts, 0, "what was given back does not count");
        drop(gate);
        finish(house.worker("next"), &house).await;
        assert_eq!(house.result().await, house.expected().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_is_shown_with_the_stage_in_hand_and_expires() {
    let house = House::slow(Duration::from_millis(1500)).await;
    let id = house.run().id();
    house.enqueue().await;
    let options = WorkerOptions { pid: 42, ..house.options("shown") };
    let name = options.name.clone();
    let shown = house.worker_with(options);
    let find = async |name: &str| {
        let all = crate::workers(&house.fleet).await.unwrap();
        all.into_iter().find(|worker| worker.name == name)
    };
    house
        .until("a finished stage and the next one", async || {
            find(&name).await.is_some_and(|all| all.stages_done == 1 && all.computing.is_some())
        })
        .await;
    let worker = find(&name).await.unwrap();
    assert_eq!((worker.pid, worker.class, &*worker.device), (42, Numerics::CpuPortable, "cpu"));
    assert!(worker.seen_ms_ago < 2000, "{worker:?}");
    let in_hand = worker.computing.unwrap();
    assert_eq!(in_hand.run, id);
    assert!(house.calls().contains_key(&in_hand.stage));

    let other = house.options("other");
    let other_name = other.name.clone();
    let other = house.worker_with(other);
    house.until("the other", async || find(&other_name).await.is_some()).await;
    shown.crash().await;
    house.until("the dead worker to be forgotten", async || find(&name).await.is_none()).await;
    other.stop.send_replace(true);
    other.end().await.unwrap();
    assert_eq!(find(&other_name).await, None, "it has signed off");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_is_stored_while_the_next_stage_is_computed() {
    let mut house = House::slow(Duration::from_millis(300)).await;
    let (store, slow) = throttled();
    house.store = store;
    house.enqueue().await;
    let worker = house.worker("busy");
    house.until("two rollouts to be offered", async || house.pending().await.len() >= 2).await;
    // From here on every write takes longer than a stage.
    let before: u64 = house.calls().values().sum();
    slow.config_mut(|config| config.wait_put_per_call = Duration::from_millis(700));
    let done = house.finished().await;
    house.until_calls(before + 2).await;
    assert!(house.finished().await <= done + 1, "the second began before the first was stored");
    slow.config_mut(|config| config.wait_put_per_call = Duration::ZERO);
    finish(worker, &house).await;
    assert_eq!(house.result().await, house.expected().await);
    assert_eq!(house.calls().values().max(), Some(&1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_away_is_ridden_out_without_computing_anew() {
    let mut house = House::slow(Duration::from_millis(300)).await;
    let (store, slow) = throttled();
    house.store = store;
    house.enqueue().await;
    let worker = house.worker("patient");
    house.until_calls(2).await;
    let away = Duration::from_secs(3600);
    for (wait, time) in [(away, 3), (Duration::ZERO, 0)] {
        slow.config_mut(|config| {
            config.wait_put_per_call = wait;
            config.wait_get_per_call = wait;
            config.wait_list_per_call = wait;
        });
        sleep(Duration::from_secs(time)).await;
    }
    finish(worker, &house).await;
    assert_eq!(house.calls().values().sum::<u64>(), Plan::total_stages(&house.run()));
    assert_eq!(house.result().await, house.expected().await);
}
