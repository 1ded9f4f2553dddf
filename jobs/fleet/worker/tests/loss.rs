//! Leases and Redis lost and found: the stage in hand is kept where it can be, and never published
//! where it is another worker's.

use std::sync::atomic::{AtomicU64, Ordering};

use agrpo_spec::Plan;
use tokio::time::sleep;

use super::house::{House, finish, finish_once};
use super::*;
use crate::coordination::leases::{LEASE, stages::Acquired};
use crate::testing::{self, RedisServer};

/// The first stage takes this long, the others no time.
pub(super) async fn slow_start(delay: Duration, extra: &[&str]) -> House {
    let begun = AtomicU64::new(0);
    let mut house = House::with(move |_, _| {
        if begun.fetch_add(1, Ordering::SeqCst) == 0 {
            std::thread::sleep(delay);
        }
        Ok(())
    })
    .await;
    if !extra.is_empty() {
        house.redis = RedisServer::start(extra);
        house.fleet = Fleet::connect(&house.redis.url()).await.unwrap();
    }
    house
}

/// The first stage is computed until the gate is dropped, the others take no time.
pub(super) async fn gated_start() -> (House, std::sync::mpsc::Sender<()>) {
    let (gate, closed) = std::sync::mpsc::channel::<()>();
    let closed = std::sync::Mutex::new(Some(closed));
    let house = House::with(move |_, _| {
        let first = closed.lock().unwrap().take();
        if let Some(closed) = first {
            closed.recv().unwrap_err();
        }
        Ok(())
    });
    (house.await, gate)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_restarts_costs_no_stage_in_hand() {
    for extra in [&["--appendonly", "yes"], &["--appendonly", "no"]] {
        let mut house = slow_start(Duration::from_secs(5), extra).await;
        house.enqueue().await;
        let workers = ["a", "b"].map(|name| house.worker(name));
        house.until_calls(1).await;
        house.redis.kill();
        // Longer than a lease lasts and than heartbeats may be missed.
        sleep(Duration::from_millis(2500)).await;
        house.redis.start_again();
        finish_once(workers, &house).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_redis_costs_no_stage_in_hand() {
    let house = slow_start(Duration::from_secs(4), &[]).await;
    house.enqueue().await;
    let workers = ["a", "b"].map(|name| house.worker(name));
    house.until_calls(1).await;
    for _ in 0..2 {
        sleep(Duration::from_millis(700)).await;
        house.redis_says::<()>(&["FLUSHALL"]).await;
    }
    finish_once(workers, &house).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_lost_its_lease_ends_while_it_computes_and_publishes_nothing() {
    let (house, gate) = gated_start().await;
    house.enqueue().await;
    let worker = house.worker("loser");
    house.until_calls(1).await;
    let (_, first) = *house.pending().await.first().unwrap();
    house
        .redis_says::<()>(&["SET", &house.fleet.keys.lease(first), "99 heir", "PX", "60000"])
        .await;
    let error = worker.end().await.unwrap_err();
    assert!(matches!(error, JobsError::Unavailable(_)));
    let expected = format!("the lease of stage {} was lost to another worker", first.short());
    assert!(error.to_string().starts_with(&expected), "{error}");
    drop(gate);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(house.finished().await, 0, "the computing ended, and nothing came of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_credentials_end_the_worker() {
    let house = slow_start(Duration::from_secs(3), &[]).await;
    house.enqueue().await;
    let worker = house.worker("refused");
    house.until_calls(1).await;
    house.redis_says::<()>(&["CONFIG", "SET", "requirepass", "s3cret"]).await;
    let others = redis::cmd("CLIENT").arg(&["KILL", "TYPE", "normal"]).to_owned();
    others.query_async::<u64>(&mut house.fleet.connection()).await.unwrap();
    let error = worker.end().await.unwrap_err();
    assert!(
        matches!(error, JobsError::Invalid(_) | JobsError::Misconfigured { .. }),
        "no supervisor's restart mends it: {error}"
    );
    assert!(error.to_string().contains("cannot serve"), "{error}");
    assert!(error.to_string().contains("AGRPO_REDIS_PASSWORD"), "{error}");
}

#[tokio::test]
async fn a_clock_that_is_off_is_refused_with_the_difference_and_the_remedy() {
    let house = House::new().await;
    house.enqueue().await;
    let real = testing::real_clock();
    for (minutes, says) in [(60, "ahead of"), (-60, "behind")] {
        let real = Arc::clone(&real);
        let off: i64 = minutes * 60_000;
        let clock: agrpo_store::Clock = Arc::new(move || real().checked_add_signed(off).unwrap());
        let options = WorkerOptions { clock, ..house.options("early") };
        let error = house.serve(options).await.unwrap_err();
        assert!(matches!(error, JobsError::Unavailable(_)));
        let text = error.to_string();
        for part in [says, "3600.", "NTP"].map(|part| part.replace("3600.", " s ")) {
            assert!(text.contains(&part), "{text}");
        }
        let seconds: f64 = text.split_whitespace().find_map(|word| word.parse().ok()).unwrap();
        assert!((seconds - 3600.0).abs() < 1.0, "{text}");
    }
    assert!(house.calls().is_empty());
    assert!(crate::workers(&house.fleet).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_goes_wrong_ends_the_worker() {
    let house = House::new().await;
    let (real, off) = (testing::real_clock(), Arc::new(AtomicU64::new(0)));
    let shift = Arc::clone(&off);
    let clock: agrpo_store::Clock = Arc::new(move || real() + shift.load(Ordering::SeqCst));
    let worker = house.worker_with(WorkerOptions { clock, ..house.options("drifting") });
    house
        .until("the worker", async || !crate::workers(&house.fleet).await.unwrap().is_empty())
        .await;
    off.store(3_600_000, Ordering::SeqCst);
    let error = worker.end().await.unwrap_err();
    assert!(error.to_string().contains("NTP"), "{error}");
}

/// One thread for everything, as a stage that blocks the runtime would leave it.
#[tokio::test]
async fn a_lease_is_renewed_though_the_runtime_is_blocked() {
    let house = House::new().await;
    house.enqueue().await;
    let options = house.options("blocked");
    let heartbeat = Heartbeat::start(&house.fleet, options.heartbeat_settings()).await.unwrap();
    let (_, first) = *house.pending().await.first().unwrap();
    let lease = heartbeat.acquire(first, "run").await.unwrap().unwrap();
    std::thread::sleep(options.lease * 3);
    let other =
        Heartbeat::start(&house.fleet, house.options("other").heartbeat_settings()).await.unwrap();
    assert_eq!(other.acquire(first, "run").await.unwrap().unwrap_err(), Acquired::Taken);
    heartbeat.release(&lease).await.unwrap();
    other.acquire(first, "run").await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_worker_s_stage_begins_elsewhere_once_its_lease_has_expired() {
    let (house, _gate) = gated_start().await;
    house.enqueue().await;
    let usual = |name: &str| {
        let WorkerOptions { numerics, name, environment, clock, .. } = house.options(name);
        house.worker_with(WorkerOptions::new(numerics, name, environment, clock))
    };
    let victim = usual("victim");
    house.until_calls(1).await;
    let heir = usual("heir");
    sleep(Duration::from_secs(3)).await;
    victim.crash().await;
    let (_, first) = *house.pending().await.first().unwrap();
    let left: u128 = house.redis_says(&["PTTL", &house.fleet.keys.lease(first)]).await;
    assert!(left <= LEASE.as_millis(), "{left}");
    house.until_calls(2).await;
    finish(heir, &house).await;
    assert_eq!(house.calls().values().sum::<u64>(), Plan::total_stages(&house.run()) + 1);
}
