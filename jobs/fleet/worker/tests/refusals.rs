//! A Redis that answers and refuses: what no other try changes ends the worker with code 2 and the remedy; what
//! may pass is retried, as long as the worker's options say.

use tokio::time::{Instant, sleep};

use super::house::{House, finish};
use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_type_ends_an_idle_worker_and_names_the_key() {
    let house = House::new().await;
    let queue = house.queue_name();
    for key in [
        house.fleet.keys.of("epoch"),
        house.fleet.keys.of("workers"),
        house.fleet.keys.of("workers:about"),
        house.fleet.keys.of("held"),
        house.fleet.keys.of("active"),
        format!("{queue}:turns"),
        house.fleet.keys.reconciler(&agrpo_store::Versions::own()),
    ] {
        house.redis_says::<()>(&["FLUSHALL"]).await;
        let worker = house.worker("idle");
        house.until("the worker", async || !house.keys().await.is_empty()).await;
        // At once, or the worker writes its own in between.
        let replace =
            "redis.call('DEL', KEYS[1]) return redis.call('XADD', KEYS[1], '*', 'a', '1')";
        house.redis_says::<String>(&["EVAL", replace, "1", &key]).await;
        let error = worker.end().await.unwrap_err();
        assert!(
            matches!(error, JobsError::Invalid(_) | JobsError::Misconfigured { .. }),
            "{key}: {error}"
        );
        let text = error.to_string();
        assert!(text.contains(&format!("{key} is a stream")), "{key}: {text}");
        assert!(text.contains("redis-cli DEL"), "{text}");
    }
}

/// Another type in place of a key ends the worker that meets it, and names the key.
async fn assert_foreign_type_ends_the_worker(house: &House, key: &str) {
    house.redis_says::<String>(&["XADD", key, "*", "a", "1"]).await;
    let error = match enqueue(&house.store, &house.fleet, house.run()).await {
        Ok(_) => house.worker("hopeful").end().await.unwrap_err(),
        Err(error) => error,
    };
    assert!(
        matches!(error, JobsError::Invalid(_) | JobsError::Misconfigured { .. }),
        "{key}: {error}"
    );
    assert!(error.to_string().contains(&format!("{key} is a stream")), "{key}: {error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_type_met_with_a_stage_in_hand_ends_the_worker() {
    for name in ["attempts", "fence"] {
        let house = House::new().await;
        assert_foreign_type_ends_the_worker(&house, &house.fleet.keys.of(name)).await;
    }
}

/// It is neither taken for a lease, which would keep every worker from reconciling, nor made to expire.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_type_in_place_of_a_lease_ends_the_worker_and_stays() {
    for is_reconciler in [true, false] {
        let house = House::new().await;
        let key = match is_reconciler {
            true => house.fleet.keys.reconciler(&agrpo_store::Versions::own()),
            false => house.fleet.keys.lease(house.pending().await[0].1),
        };
        assert_foreign_type_ends_the_worker(&house, &key).await;
        assert_eq!(house.redis_says::<i64>(&["PTTL", &key]).await, -1, "{key}");
    }
}

/// A right taken away while the worker lives, used by its heartbeat or by the queue alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_that_is_taken_away_ends_the_worker() {
    for (command, used_by_hints) in
        [("zrange", false), ("evalsha", false), ("zscore", false), ("zpopmin", true)]
    {
        let house = House::new().await;
        let worker = house.worker("trusted");
        house.until("the worker", async || !house.keys().await.is_empty()).await;
        house.redis_says::<()>(&["ACL", "SETUSER", "default", &format!("-{command}")]).await;
        if used_by_hints {
            house.enqueue().await;
        }
        let error = worker.end().await.unwrap_err();
        assert!(
            matches!(error, JobsError::Invalid(_) | JobsError::Misconfigured { .. }),
            "{command}: {error}"
        );
        let line = format!("`ACL SETUSER default +{command}` grants it");
        assert!(error.to_string().contains(&line), "{command}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_forbidden_later_ends_the_worker_and_is_named() {
    let house = House::new().await;
    let worker = house.worker("trusted");
    house.until("the worker", async || !house.keys().await.is_empty()).await;
    house.redis_says::<()>(&["ACL", "SETUSER", "default", "resetkeys", "~other:*"]).await;
    let error = worker.end().await.unwrap_err();
    assert!(matches!(error, JobsError::Invalid(_) | JobsError::Misconfigured { .. }), "{error}");
    assert!(error.to_string().contains("`ACL SETUSER default ~agrpo:*` grants it"), "{error}");
}

/// Whether the worker computes or not: its heartbeat looks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_eviction_policy_that_is_set_later_ends_the_worker_in_time() {
    let house = House::new().await;
    let options = house.options("unaware");
    let bound = options.lease * 5;
    let worker = house.worker_with(options);
    house
        .until("the worker", async || !crate::workers(&house.fleet).await.unwrap().is_empty())
        .await;
    sleep(Duration::from_secs(1)).await;
    house.redis_says::<()>(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).await;
    let error = timeout(bound, worker.end()).await.expect("the worker ends").unwrap_err();
    assert!(matches!(error, JobsError::Invalid(_) | JobsError::Misconfigured { .. }), "{error}");
    assert!(error.to_string().contains("CONFIG SET maxmemory-policy noeviction"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_is_waited_for_and_a_replica_that_stays_one_is_not() {
    let house = House::slow(Duration::from_millis(100)).await;
    house.enqueue().await;
    let worker = house.worker("patient");
    house.until_calls(2).await;
    house.redis_says::<()>(&["REPLICAOF", "127.0.0.1", "1"]).await;
    sleep(Duration::from_secs(2)).await;
    house.redis_says::<()>(&["REPLICAOF", "NO", "ONE"]).await;
    finish(worker, &house).await;
    assert_eq!(house.result().await, house.expected().await);

    let options = WorkerOptions { retry_for: Duration::from_secs(2), ..house.options("deserted") };
    let worker = house.worker_with(options);
    house
        .until("the worker", async || !crate::workers(&house.fleet).await.unwrap().is_empty())
        .await;
    house.redis_says::<()>(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let error = worker.end().await.unwrap_err();
    assert!(matches!(error, JobsError::Invalid(_) | JobsError::Misconfigured { .. }), "{error}");
    assert!(error.to_string().contains("replica"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_memory_is_waited_for_and_reported() {
    let house = House::slow(Duration::from_millis(100)).await;
    house.enqueue().await;
    let worker = house.worker("patient");
    house.until_calls(2).await;
    house.redis_says::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await;
    sleep(Duration::from_secs(1)).await;
    house.redis_says::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await;
    finish(worker, &house).await;
    assert_eq!(house.result().await, house.expected().await);

    let options = WorkerOptions { retry_for: Duration::from_secs(2), ..house.options("starved") };
    let worker = house.worker_with(options);
    house
        .until("the worker", async || !crate::workers(&house.fleet).await.unwrap().is_empty())
        .await;
    house.redis_says::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let error = worker.end().await.unwrap_err();
    assert!(matches!(error, JobsError::Unavailable(_)), "{error}");
    assert!(error.to_string().contains("raise maxmemory"), "{error}");
}

/// Redis answers the heartbeat and not the queue: the worker ends after the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_to_retry_bounds_the_exchange_with_the_queue() {
    let house = House::new().await;
    let mut gone = crate::testing::RedisServer::start(&[]);
    let elsewhere = Fleet::connect(&gone.url()).await.unwrap();
    let mut worker = Arc::into_inner(house.parts("forgotten").await).unwrap();
    worker.queue = Queue::new(&elsewhere, Numerics::CpuPortable, &worker.options.versions);
    gone.kill();
    let (work, _deliveries) = mpsc::channel(1);
    let (_idle, idle_since) = watch::channel(Some(Instant::now()));
    let consumed = Arc::new(worker).consume(work, watch::channel(false).1, idle_since).await;
    let error = consumed.unwrap_err();
    assert!(matches!(error, JobsError::Unavailable(_)), "{error}");
    assert!(error.to_string().contains("was lost"), "{error}");
}

/// Connected, and never answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_redis_is_silent_can_be_stopped() {
    let house = House::new().await;
    let worker = house.worker("unheard");
    house
        .until("the worker", async || !crate::workers(&house.fleet).await.unwrap().is_empty())
        .await;
    house.redis.stop();
    worker.stop.send_replace(true);
    // It has nothing in hand: the longest wait is that for one answer.
    worker.end().await.ok();
}
