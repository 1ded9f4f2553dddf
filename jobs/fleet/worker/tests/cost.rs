//! What a stage costs beside its own work: requests to the store and commands to Redis. What it costs in time
//! is measured by `make simulate`.

use agrpo_spec::Plan;

use super::house::House;
use super::*;
use crate::testing::run_of;

/// Lets `count` workers compute the run.
async fn compute(house: &House, run: &agrpo_spec::Run, count: usize) {
    let workers: Vec<_> = (0..count)
        .map(|i| {
            let options = house.options(&format!("w{i}"));
            house.worker_with(WorkerOptions {
                poll: Duration::from_millis(50),
                lease: Duration::from_secs(20),
                reconcile: Duration::from_secs(2),
                ..options
            })
        })
        .collect();
    let stages = Plan::total_stages(run);
    while house.calls().values().sum::<u64>() < stages {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    house.until_done_with(run).await;
    for worker in &workers {
        worker.stop.send_replace(true);
    }
    for worker in workers {
        worker.end().await.unwrap();
    }
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
        let message = format!(
            "{shards} shards, {workers} workers: {requests:.1} requests and {redis:.1} commands a \
             stage: {}",
            shares.join(", ")
        );
        println!("{message}");
        assert!(requests < 14.0 && redis < 9.0, "{message}");
        assert_eq!(house.calls().values().max(), Some(&1));
    }
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
