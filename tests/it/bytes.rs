//! The promise: one run file, one chain of bytes, however often and wherever it is computed.

use std::process::{Child, Command};
use std::time::Duration;

use crate::support::not_run::not_run;
use crate::support::program::Program;
use crate::support::redis::RedisServer;
use crate::support::s3::S3Server;

/// The final policy of an uninterrupted run with one worker.
fn reference() -> String {
    let program = Program::new(&[]);
    run_to_the_end(&program, ["1", "1"])
}

fn run_to_the_end(program: &Program, [threads, workers]: [&str; 2]) -> String {
    program.json(&["run", "run.toml", "--threads", threads, "--workers", workers, "--json"]);
    let (policy, state) = program.policy();
    assert_eq!(state, "done");
    policy
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_run_gives_the_same_policy_again_and_on_any_number_of_threads_and_workers() {
    let expected = reference();
    for how in [["1", "1"], ["1", "2"], ["3", "1"], ["3", "2"]] {
        assert_eq!(run_to_the_end(&Program::new(&[]), how), expected, "{how:?}");
    }
}

/// Kernels for AVX-512 where the processor has it, for AVX2 elsewhere.
#[test]
fn a_processor_without_avx_512_gives_the_same_policy() {
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    for needed in ["avx512f", "cpuid_fault"] {
        if !flags.split_whitespace().any(|flag| flag == needed) {
            return not_run(&format!("the processor has no {needed}: no AVX-512 can be hidden"));
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("without_avx512.so");
    let mut compiler = Command::new("c++");
    compiler.args([
        "-xc",
        "-O1",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-shared",
        "-fPIC",
        "-Wl,-z,initfirst",
    ]);
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/without_avx512.c");
    assert!(compiler.arg("-o").arg(&library).arg(source).status().unwrap().success());
    let program = Program::new(&[("LD_PRELOAD", library.to_str().unwrap())]);
    let said = program.run(&["run", "run.toml", "--json"]);
    if said.code == Some(99) {
        return not_run("the system lets no process trap its CPUID instructions");
    }
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert!(said.stderr.contains("AVX-512 is hidden"), "{}", said.stderr);
    assert_eq!(program.policy(), (reference(), "done".to_owned()));
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
    assert_eq!(run_to_the_end(&program, ["2", "2"]), reference());
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
