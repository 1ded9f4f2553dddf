//! Several workers at one run, and one hint delivered several times.

use agrpo_spec::Plan;
use tokio::time::sleep;

use super::house::House;
use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_workers_end_where_one_process_ends_without_the_reconciler() {
    for work in [0, 0, 0, 20, 20] {
        let house = House::slow(Duration::from_millis(work)).await;
        let workers = ["a", "b", "c"].map(|name| {
            let never = Duration::from_secs(3600);
            house.worker_with(WorkerOptions { reconcile: never, ..house.options(name) })
        });
        house.enqueue().await;
        house.until_done().await;
        for worker in workers {
            worker.stop.send_replace(true);
            worker.end().await.unwrap();
        }
        assert_eq!(house.result().await, house.expected().await);
        assert_eq!(house.calls().values().sum::<u64>(), Plan::total_stages(&house.run()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hint_that_comes_three_times_is_computed_once() {
    let house = House::slow(Duration::from_millis(500)).await;
    house.enqueue().await;
    let queue = house.queue(Numerics::CpuPortable);
    let first = *house.pending().await.first().unwrap();
    assert_eq!(queue.offer(house.run().id(), [first]).await.unwrap(), 0);
    for order in ["x", "y"] {
        // As if planners had given the stage other places in the order.
        let ready = format!("{}:ready:{}", house.queue_name(), house.run().id());
        let entry = format!("{order} {} {}", first.0, first.1);
        house.redis_says::<()>(&["ZADD", &ready, "0", &entry]).await;
    }
    assert_eq!(house.waiting().await, 3);
    let workers = ["a", "b", "c"].map(|name| house.worker(name));
    house.until_calls(2).await;
    assert_eq!(house.calls()[&first.1], 1);
    for worker in workers {
        worker.stop.send_replace(true);
        worker.end().await.unwrap();
    }
}

#[tokio::test]
async fn a_stage_that_waits_is_not_offered_again_and_one_that_was_taken_is() {
    let house = House::new().await;
    let queue = house.queue(Numerics::CpuPortable);
    let run = house.run().id();
    house.enqueue().await;
    let first = *house.pending().await.first().unwrap();
    sleep(Duration::from_secs(3)).await;
    assert_eq!(queue.offer(run, [first]).await.unwrap(), 0, "it waits");
    // As after a delivery that was acknowledged without a result.
    house.redis_says::<()>(&["FLUSHALL"]).await;
    assert_eq!(queue.offer(run, [first]).await.unwrap(), 1);
    assert_eq!(queue.offer(run, [first]).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_find_a_run_that_redis_never_heard_of() {
    let house = House::new().await;
    house.store.records.put_run(&house.run()).await.unwrap();
    house::finish(house.worker("finder"), &house).await;
    assert_eq!(house.result().await, house.expected().await);
}
