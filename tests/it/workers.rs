//! Workers as processes: what ends one, what does not, and by which signals.

use std::process::{Child, Command};
use std::time::Duration;

use crate::support::program::{Program, RUN};
use crate::support::redis::RedisServer;
use crate::support::wait::wait_for;

/// Longer than these tests take.
const LONG: &str = "steps = 100000\nbatch = 32\nsteps_per_stage = 100000\n";

struct Fleet {
    redis: RedisServer,
    program: Program,
}

impl Fleet {
    /// A run whose first stage takes minutes, enqueued, without workers.
    fn new() -> Self {
        let redis = RedisServer::start(&[]);
        let program = Program::new(&[("AGRPO_REDIS", &redis.url())]);
        let long = RUN.replace("steps = 100\nbatch = 32\nsteps_per_stage = 50\n", LONG);
        std::fs::write(program.folder().join("long.toml"), long).unwrap();
        let said = program.run(&["enqueue", "long.toml"]);
        assert_eq!(said.code, Some(0), "{}", said.stderr);
        Self { redis, program }
    }

    fn worker(&self) -> Child {
        self.program.start(&["worker"])
    }

    /// The process and the stage of the first worker that computes.
    fn in_hand(&self) -> (u64, String) {
        wait_for("a worker that computes", || {
            let answer = self.program.json(&["status", "--workers", "--json"]);
            answer["workers"].as_array().unwrap().iter().find_map(|worker| {
                let stage = worker["in_hand"]["stage"].as_str()?.to_owned();
                Some((worker["pid"].as_u64().unwrap(), stage))
            })
        })
    }

    fn redis_says(&self, command: &[&str]) {
        let client = redis::Client::open(self.redis.url()).unwrap();
        let mut connection = client.get_connection().unwrap();
        redis::cmd(command[0]).arg(&command[1..]).exec(&mut connection).unwrap();
    }
}

/// The exit code of a process that ends soon, though its stage goes on for minutes.
fn code_of(mut worker: Child) -> Option<i32> {
    wait_for("the end of the worker", || worker.try_wait().unwrap()).code()
}

fn terminate(worker: &Child) {
    assert!(Command::new("kill").arg(worker.id().to_string()).status().unwrap().success());
}

#[test]
fn a_worker_keeps_its_stage_through_a_restart_of_redis_and_ends_when_it_loses_its_lease() {
    let mut fleet = Fleet::new();
    let mut worker = fleet.worker();
    let before = fleet.in_hand();
    assert_eq!(before.0, u64::from(worker.id()));
    fleet.redis.kill();
    std::thread::sleep(Duration::from_secs(3));
    fleet.redis.start_again();
    std::thread::sleep(Duration::from_secs(4));
    assert!(worker.try_wait().unwrap().is_none(), "the worker rides it out");
    assert_eq!(fleet.in_hand(), before);
    fleet.redis_says(&["SET", &format!("agrpo:{{q8130}}:lease:{}", before.1), "9 another-worker"]);
    assert_eq!(code_of(worker), Some(4));
}

#[test]
fn a_second_signal_makes_a_worker_give_its_stage_back_and_a_paused_run_is_not_taken() {
    let fleet = Fleet::new();
    let worker = fleet.worker();
    let (_, stage) = fleet.in_hand();
    for verb in ["pause", "resume"] {
        let said = fleet.program.json(&[verb, "bytes", "--json"]);
        assert_eq!(said["workers_told"], true, "{said}");
        let state = if verb == "pause" { "paused" } else { "running" };
        assert_eq!(fleet.program.policy().1, state);
    }
    for _ in 0..2 {
        terminate(&worker);
        std::thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(code_of(worker), Some(0));
    let next = fleet.worker();
    assert_eq!(fleet.in_hand(), (u64::from(next.id()), stage));
    fleet.redis_says(&["FLUSHALL"]);
    // As a supervisor does after its stop timeout.
    let mut next = next;
    next.kill().unwrap();
    next.wait().unwrap();
}
