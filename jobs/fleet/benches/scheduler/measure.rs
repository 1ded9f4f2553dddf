//! Computes a run and measures time, memory, and the stages that wait in Redis.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use agrpo_fleet::local::Local;
use agrpo_fleet::{Event, Fleet, WorkerOptions, enqueue, serve};
use agrpo_spec::{Numerics, Plan, Run};
use agrpo_store::Store;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::stub::{self, Setup};
use crate::redis_server::RedisServer;

const INTERVAL: Duration = Duration::from_millis(100);

pub(crate) const HEAD: &str = "where      stages workers  seconds stages/s  CPU us/stage  first 1/4  last 1/4  \
                               MiB at 1/4  1/2  all   Redis MiB  most ready  lost";

pub(crate) struct Row {
    pub(crate) services: String,
    pub(crate) stages: u64,
    pub(crate) workers: usize,
}

/// A measurement at one moment.
#[derive(Clone, Copy, Default)]
struct Sample {
    done: u64,
    cpu: Duration,
    resident: u64,
}

pub(crate) struct Seen {
    total: u64,
    /// Workers that ended before they were stopped.
    lost: u64,
    taken: Duration,
    cpu: Duration,
    samples: Vec<Sample>,
    redis: u64,
    ready: u64,
}

type Count = Arc<AtomicU64>;

#[tokio::main(worker_threads = 2)]
pub(crate) async fn simulate(asked: &Row) -> Seen {
    let setup = Setup::new(&asked.services).await;
    let run = stub::run(asked.stages, asked.workers.clamp(8, 512));
    let total = Plan::total_stages(&run);
    let count = Count::default();
    let has_redis = ["redis", "s3"].contains(&asked.services.as_str());
    let server = has_redis.then(|| RedisServer::start(&["--appendfsync", "everysec"]));
    let fleet = match &server {
        Some(server) => Some(Fleet::connect(&server.url()).await.expect("a Redis")),
        None => None,
    };
    let numerics = run.config().numerics;
    let (began, cpu_before) = (Instant::now(), cpu());
    let mut observer = JoinSet::new();
    let (ended, end) = watch::channel(false);
    let redis_url = server.as_ref().map(RedisServer::url);
    observer.spawn(observe(count.clone(), fleet.clone(), redis_url, numerics, end));
    let lost = match &fleet {
        Some(fleet) => by_fleet(&setup.store, fleet, run, asked.workers, &count).await,
        None => in_one_process(&setup.store, run, asked.workers, &count).await,
    };
    let (taken, cpu) = (began.elapsed(), cpu() - cpu_before);
    ended.send_replace(true);
    let observed = observer.join_next().await.expect("the observer");
    let (samples, redis, ready) = observed.expect("to the end");
    Seen { total, lost, cpu, taken, samples, redis, ready }
}

async fn in_one_process(store: &Store, run: Run, workers: usize, count: &Count) -> u64 {
    let (events, mut heard) = mpsc::unbounded_channel();
    let (_stop, stop) = watch::channel(false);
    let local = Local {
        store: store.clone(),
        execute: Arc::new(stub::outputs),
        workers,
        environment: stub::environment(0),
        clock: stub::clock(),
        log_tail: Arc::new(|_| vec![]),
    };
    let running = local.run(run, false, events, stop);
    let listening = async {
        while let Some(event) = heard.recv().await {
            if matches!(event, Event::Settled { is_reused: false, .. }) {
                count.fetch_add(1, Relaxed);
            }
        }
    };
    let (outcome, ()) = tokio::join!(running, listening);
    assert!(outcome.expect("a run to its end").done);
    0
}

async fn by_fleet(store: &Store, fleet: &Fleet, run: Run, workers: usize, count: &Count) -> u64 {
    let (events, mut heard) = mpsc::unbounded_channel();
    let (stop, stopped) = watch::channel(false);
    let (id, mut is_done, mut last) = (run.id(), false, None);
    enqueue(store, fleet, run).await.expect("a run is handed over");
    let mut tasks = JoinSet::new();
    for n in 0..workers {
        let options = WorkerOptions::new(
            Numerics::CpuPortable,
            format!("worker-{n}"),
            stub::environment(n),
            stub::clock(),
        );
        // Workers share no cache, as separate processes would.
        let (store, fleet, events, stopped) =
            (store.fresh(), fleet.clone(), events.clone(), stopped.clone());
        tasks.spawn(serve(store, fleet, Arc::new(stub::outputs), options, events, stopped));
    }
    drop(events);
    while let Some(event) = heard.recv().await {
        match event {
            Event::Settled { is_reused: false, .. } => drop(count.fetch_add(1, Relaxed)),
            Event::Done { run } if run == id => {
                is_done = true;
                break;
            }
            Event::Failed { failure, .. } => panic!("a stub does not fail: {}", failure.error),
            _ => {}
        }
    }
    stop.send_replace(true);
    let mut lost = 0;
    while let Some(worker) = tasks.join_next().await {
        // A worker that lost a lease ends; systemd would start it again.
        if let Err(error) = worker.expect("a worker") {
            lost += 1;
            last = Some(error);
        }
    }
    assert!(is_done, "every worker has ended before the run, the last of {last:?}");
    lost
}

/// Notes memory and progress until the run ends.
async fn observe(
    count: Count,
    fleet: Option<Fleet>,
    redis_url: Option<String>,
    numerics: Numerics,
    end: watch::Receiver<bool>,
) -> (Vec<Sample>, u64, u64) {
    let (mut samples, mut redis, mut ready) = (vec![], 0, 0);
    let mut connection = match &redis_url {
        Some(url) => {
            let client = redis::Client::open(url.as_str()).expect("a URL");
            Some(client.get_multiplexed_async_connection().await.expect("a Redis"))
        }
        None => None,
    };
    let sample = || Sample { done: count.load(Relaxed), cpu: cpu(), resident: resident() };
    while !*end.borrow() {
        samples.push(sample());
        if let (Some(fleet), Some(connection)) = (&fleet, &mut connection) {
            ready = ready.max(fleet.waiting(numerics).await.unwrap_or(0));
            let info = redis::cmd("INFO").query_async::<redis::InfoDict>(connection).await;
            redis = redis.max(info.ok().and_then(|info| info.get("used_memory")).unwrap_or(0));
        }
        tokio::time::sleep(INTERVAL).await;
    }
    samples.push(sample());
    (samples, redis, ready)
}

/// Processor time of this process: user and system.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Bytes of this process in memory.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = text.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
    pages * 4096
}

impl Seen {
    /// The first sample with so many quarters of the stages done.
    fn at(&self, quarters: u64) -> Sample {
        let least = self.total * quarters / 4;
        let found = self.samples.iter().find(|sample| sample.done >= least);
        *found.or(self.samples.last()).unwrap_or(&Sample::default())
    }

    /// Microseconds of processor time a stage between two quarters.
    fn cost(&self, from: u64, to: u64) -> f64 {
        let (first, last) = (self.at(from), self.at(to));
        let stages = last.done.saturating_sub(first.done).max(1);
        (last.cpu.saturating_sub(first.cpu)).as_secs_f64() * 1e6 / stages as f64
    }

    pub(crate) fn shown(&self, asked: &Row) -> String {
        let mib = |bytes: u64| bytes >> 20;
        let seconds = self.taken.as_secs_f64();
        let samples = [1, 2, 4].map(|quarters| mib(self.at(quarters).resident));
        format!(
            "{:<9} {:>7} {:>7} {seconds:>8.1} {:>8.0} {:>13.0} {:>10.0} {:>9.0} {:>11} {:>4} {:>4} {:>11} {:>11} {:>5}",
            asked.services,
            self.total,
            asked.workers,
            self.total as f64 / seconds,
            self.cpu.as_secs_f64() * 1e6 / self.total as f64,
            self.cost(0, 1),
            self.cost(3, 4),
            samples[0],
            samples[1],
            samples[2],
            mib(self.redis),
            self.ready,
            self.lost
        )
    }
}
