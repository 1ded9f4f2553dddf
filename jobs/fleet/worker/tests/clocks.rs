//! Times and counts that another program wrote, or that were stored while the clock of Redis was ahead: they hold
//! up no worker for longer than a lease lasts, and fail no run.

use tokio::time::sleep;

use super::house::{House, finish};
use super::*;
use crate::coordination::keys::{ABOUT, ATTEMPTS, EPOCH, FENCE, WORKERS};
use crate::coordination::leases::stages::Acquired;

/// Stores one time everywhere: as a time of day in milliseconds and in seconds.
async fn store_everywhere(house: &House, ms: &str, seconds: &str) {
    let key = |name: &str| house.fleet.keys.of(name);
    let says = async |command: &[&str]| house.redis_says::<redis::Value>(command).await;
    let info: String = house.redis_says(&["INFO", "server"]).await;
    let life = info.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap().trim();
    says(&["HSET", &key(EPOCH), "redis", life, "from", ms, "seen", ms]).await;
    let queue = house.queue_name();
    // Sorted sets take numbers only.
    if seconds.parse::<f64>().is_ok() {
        says(&["ZADD", &key(WORKERS), ms, "ghost"]).await;
        says(&["HSET", &key(ABOUT), "ghost", "{}"]).await;
        let (_, stage) = *house.pending().await.first().unwrap();
        says(&["ZADD", &format!("{queue}:taken"), seconds, &stage.to_string()]).await;
        // The first stage's hint was taken by a worker that is gone, and another run waits for a turn that is far.
        let ready = format!("{queue}:ready:{}", house.run().id());
        says(&["ZPOPMIN", &ready]).await;
        says(&["ZADD", &format!("{queue}:turns"), seconds, "another"]).await;
        says(&["ZADD", &format!("{queue}:ready:another"), seconds, "foreign"]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_that_is_ahead_or_none_holds_up_no_worker() {
    let now = crate::testing::real_clock()();
    for (ms, seconds) in [
        ((now + 2 * 3_600_000).to_string(), (now / 1000 + 7200).to_string()),
        ((now * 3).to_string(), (now / 1000 * 3).to_string()),
        ("1e300".to_owned(), "1e300".to_owned()),
        ("-5".to_owned(), "-5".to_owned()),
        ("soon".to_owned(), "soon".to_owned()),
        ("nan".to_owned(), "nan,".to_owned()),
        (String::new(), String::new()),
    ] {
        let house = House::new().await;
        house.enqueue().await;
        store_everywhere(&house, &ms, &seconds).await;
        let worker = house.worker("on-time");
        // No worker is taken for alive once it was silent for as long as that takes.
        let workers = house.fleet.keys.of(WORKERS);
        let gone = async || {
            let ghost: Option<f64> = house.redis_says(&["ZSCORE", &workers, "ghost"]).await;
            ghost.is_none()
        };
        house.until("the ghost to go", gone).await;
        finish(worker, &house).await;
        assert_eq!(house.result().await, house.expected().await, "{ms}");
        assert_eq!(house.calls().values().max(), Some(&1), "{ms}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_without_an_end_holds_up_its_stage_for_as_long_as_a_lease_lasts() {
    for expiry in [None, Some("999999999")] {
        let house = House::new().await;
        let (_, first) = *house.pending().await.first().unwrap();
        let reconciler = house.fleet.keys.reconciler(&agrpo_store::Versions::own());
        for key in [house.fleet.keys.lease(first), reconciler] {
            let set = ["SET", &key, "9 another"];
            match expiry {
                None => house.redis_says::<()>(&set).await,
                Some(expiry) => house.redis_says::<()>(&[&set[..], &["PX", expiry]].concat()).await,
            }
        }
        house.store.records.put_run(&house.run()).await.unwrap();
        finish(house.worker("patient"), &house).await;
        assert_eq!(house.result().await, house.expected().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_living_holder_keeps_a_lease_whose_expiry_was_removed() {
    let house = super::loss::slow_start(Duration::from_secs(4), &[]).await;
    house.enqueue().await;
    let worker = house.worker("holder");
    house.until_calls(1).await;
    let (_, first) = *house.pending().await.first().unwrap();
    house.redis_says::<()>(&["PERSIST", &house.fleet.keys.lease(first)]).await;
    let other =
        Heartbeat::start(&house.fleet, house.options("other").heartbeat_settings()).await.unwrap();
    assert_eq!(other.acquire(first, "run").await.unwrap().unwrap_err(), Acquired::Taken);
    super::house::finish_once([worker], &house).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_that_no_agrpo_wrote_begin_anew() {
    for count in ["99999", "-7", "9223372036854775807", "many", "1.5", "nan", ""] {
        let house = House::new().await;
        let (_, first) = *house.pending().await.first().unwrap();
        let key = |name: &str| house.fleet.keys.of(name);
        house.redis_says::<()>(&["HSET", &key(ATTEMPTS), &first.to_string(), count]).await;
        house.redis_says::<()>(&["SET", &key(FENCE), count]).await;
        house.enqueue().await;
        finish(house.worker("counting"), &house).await;
        assert_eq!(house.result().await, house.expected().await, "{count}");
        assert_eq!(house.store.records.failures(house.run().id()).await.unwrap(), [], "{count}");
    }
}

/// Redis lets no worker take a stage, and says so again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_waits_for_holders_to_come_back_can_be_stopped() {
    for hurried in [false, true] {
        let house = House::new().await;
        house.enqueue().await;
        let (hurry, hurrying) = watch::channel(false);
        let options = WorkerOptions { hurry: hurrying, ..house.options("waiting") };
        let worker = house.worker_with(options);
        let ending = async {
            sleep(Duration::from_secs(3)).await;
            worker.stop.send_replace(true);
            hurry.send_replace(hurried);
            worker.end().await
        };
        let forbidding = async {
            loop {
                let from = (crate::testing::real_clock()() + 500).to_string();
                house.redis_says::<()>(&["HSET", &house.fleet.keys.of(EPOCH), "from", &from]).await;
                sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            ended = ending => ended.unwrap(),
            () = forbidding => {}
        }
        assert_eq!(house.calls().len(), 0);
        // The hint was not lost with the worker, nor is it held by its name.
        finish(house.worker("next"), &house).await;
        assert_eq!(house.result().await, house.expected().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reconciler_that_stops_lets_the_next_one_reconcile() {
    let house = House::new().await;
    let reconciler = house.fleet.keys.reconciler(&agrpo_store::Versions::own());
    let worker = house.worker("reconciler");
    house
        .until("a reconciler", async || house.redis_says::<bool>(&["EXISTS", &reconciler]).await)
        .await;
    worker.stop.send_replace(true);
    worker.end().await.unwrap();
    assert!(!house.redis_says::<bool>(&["EXISTS", &reconciler]).await, "its lease is given back");
}
