//! The promise: one run file, one chain of bytes, however often and wherever it is computed.

use std::process::Child;
use std::time::Duration;

use crate::support::program::{Program, RUN};
use crate::support::redis::RedisServer;
use crate::support::s3::S3Server;

/// The final policy of an uninterrupted run with one worker.
fn reference() -> String {
    let program = Program::new(&[]);
    run_to_the_end(&program, "1")
}

fn run_to_the_end(program: &Program, workers: &str) -> String {
    program.json(&["run", "run.toml", "--workers", workers, "--json"]);
    let (policy, state) = program.policy();
    assert_eq!(state, "done");
    policy
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_run_gives_the_same_policy_again_and_with_two_workers() {
    let expected = reference();
    assert_eq!(run_to_the_end(&Program::new(&[]), "1"), expected);
    assert_eq!(run_to_the_end(&Program::new(&[]), "2"), expected);
}

/// Ten moments spread over the whole run: each start works a little longer than it takes to start.
#[test]
fn a_run_killed_ten_times_ends_in_the_same_policy() {
    let program = Program::new(&[]);
    let seed = agrpo_spec::Seed::new(10);
    for kill_number in 0..10 {
        let child = program.start(&["run", "run.toml", "--workers", "2"]);
        let wait_ms = 250 + seed.below(500, kill_number, 0);
        std::thread::sleep(Duration::from_millis(wait_ms));
        kill(child);
    }
    assert_eq!(run_to_the_end(&program, "2"), reference());
}

#[test]
fn a_fleet_that_loses_a_worker_ends_in_the_same_policy() {
    let (redis, s3) = (RedisServer::start(&[]), S3Server::start());
    let url = redis.url();
    let mut environment = s3.environment().to_vec();
    environment.push(("AGRPO_REDIS", &url));
    let program = Program::new(&environment);
    program.json(&["enqueue", "run.toml", "--json"]);
    let doomed = program.start(&["worker"]);
    let survivor = program.start(&["worker", "--exit-when-idle", "20"]);
    std::thread::sleep(Duration::from_millis(1500));
    kill(doomed);
    let (mut policy, mut state) = (String::new(), String::new());
    for _ in 0..240 {
        (policy, state) = program.policy();
        if state == "done" {
            break;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    kill(survivor);
    assert_eq!(state, "done");
    assert_eq!(policy, reference());
}

/// Two runs of different numerics classes, and one worker started with neither as its option.
#[test]
fn a_worker_without_a_class_serves_every_class() {
    let redis = RedisServer::start(&[]);
    let url = redis.url();
    let program = Program::new(&[("AGRPO_REDIS", &url)]);
    let native = RUN.replace("seed = 7", "seed = 7\nnumerics = \"cpu-native\"");
    std::fs::write(program.folder().join("native.toml"), native).unwrap();
    for file in ["run.toml", "native.toml"] {
        program.json(&["enqueue", file, "--json"]);
    }
    let said = program.run(&["worker", "--exit-when-idle", "8"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let status = program.json(&["status", "--json"]);
    let states: Vec<_> = status["runs"].as_array().unwrap().iter().map(|r| &r["state"]).collect();
    assert_eq!(states, ["done", "done"], "{}", said.stderr);
}
