//! What a stage costs beside its own work: requests to the store, commands to Redis, time.

use agrpo_spec::Plan;
use tokio::time::Instant;

use super::house::House;
use super::*;
use crate::s3_server::S3Server;
use crate::store::counting::Counts;
use crate::testing::run_of;

/// Lets `count` workers compute the run; the time it took.
async fn compute(house: &House, run: &agrpo_spec::Run, count: usize) -> Duration {
    let begin = Instant::now();
    let workers: Vec<_> = (0..count)
        .map(|i| {
            let options = house.options(&format!("w{i}"));
            house.worker_with(WorkerOptions {
                poll: Duration::from_millis(50),
                heartbeat: Duration::from_secs(5),
                lease: Duration::from_secs(20),
                sweep: Duration::from_secs(2),
                ..options
            })
        })
        .collect();
    let stages = Plan::total_stages(run);
    while house.calls().values().sum::<u64>() < stages {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let took = begin.elapsed();
    house.until_done_with(run).await;
    for worker in &workers {
        worker.stop.send_replace(true);
    }
    for worker in workers {
        worker.end().await.unwrap();
    }
    took
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stdout, reason = "a measurement's output is its figures")]
async fn a_stage_costs_a_bounded_number_of_requests_whatever_the_width_and_the_fleet() {
    for (iterations, shards, workers) in [(12, 4, 2), (6, 16, 2), (6, 16, 12)] {
        let house = House::new().await;
        let run = run_of("cost", iterations, shards);
        house.enqueue_run(run.clone()).await;
        house.counts.lock().unwrap().clear();
        let before = commands(&house).await;
        compute(&house, &run, workers).await;
        let stages = Plan::total_stages(&run);
        #[expect(clippy::cast_precision_loss, reason = "counts of a test")]
        let each = |count: u64| count as f64 / stages as f64;
        let counts = house.counts.lock().unwrap().clone();
        let requests = each(counts.values().sum());
        let redis = each(commands(&house).await - before);
        let shares: Vec<_> =
            counts.iter().map(|(what, &count)| format!("{what} {:.1}", each(count))).collect();
        let told = format!(
            "{shards} shards, {workers} workers: {requests:.1} requests and {redis:.1} commands a \
             stage: {}",
            shares.join(", ")
        );
        println!("{told}");
        assert!(requests < 14.0 && redis < 9.0, "{told}");
        assert_eq!(house.calls().values().max(), Some(&1));
    }
}

/// Stages a second of sixteen workers through a real Redis and a real S3, with stages that cost nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures this machine; run it alone: cargo test --release -p agrpo-jobs rate_through -- --ignored --nocapture"]
#[expect(clippy::print_stdout, reason = "a measurement's output is its figure")]
async fn rate_through_redis_and_s3() {
    let server = S3Server::start();
    let options = server.environment().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let store = Store::open("s3://agrpo", &options[1..]).await.unwrap();
    let house = House::over(store, Counts::default(), |_, _| Ok(())).await;
    let run = run_of("rate", 12, 16);
    house.enqueue_run(run.clone()).await;
    let took = compute(&house, &run, 16).await;
    let stages = Plan::total_stages(&run);
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = stages as f64 / took.as_secs_f64();
    println!("{stages} stages in {took:.1?}: {rate:.0} a second");
    assert_eq!(house.result_of(&run).await.len() as u64, stages);
}

/// Commands that clients sent, those inside scripts left out.
async fn commands(house: &House) -> u64 {
    let stats: String = house.redis_says(&["INFO", "commandstats"]).await;
    let of = |name: &str| {
        let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{name}:")));
        let calls = line.and_then(|line| line.strip_prefix("calls=")?.split(',').next());
        calls.and_then(|calls| calls.parse::<u64>().ok()).unwrap_or(0)
    };
    of("evalsha") + of("eval")
}
