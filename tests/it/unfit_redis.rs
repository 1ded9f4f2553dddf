//! A Redis that answers and cannot serve: the errors of doctor, enqueue and worker, and their exit codes.

use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::Duration;

use crate::support::program::Program;
use crate::support::redis::RedisServer;
use crate::support::wait::wait_for;

fn connection(redis: &RedisServer) -> redis::Connection {
    redis::Client::open(redis.url()).unwrap().get_connection().unwrap()
}

fn says(redis: &RedisServer, command: &[&str]) {
    redis::cmd(command[0]).arg(&command[1..]).exec(&mut connection(redis)).unwrap();
}

fn keys(redis: &RedisServer) -> Vec<String> {
    redis::cmd("KEYS").arg("*").query(&mut connection(redis)).unwrap()
}

/// Waits until there is such a key.
fn wait_for_key(redis: &RedisServer, is_it: fn(&str) -> bool) {
    wait_for("a key of a worker", || keys(redis).into_iter().find(|key| is_it(key)));
}

/// A Redis of these arguments, after these commands.
fn unfit(arguments: &[&str], commands: &[&[&str]]) -> RedisServer {
    let redis = RedisServer::start(arguments);
    commands.iter().for_each(|command| says(&redis, command));
    redis
}

/// What is wrong; the arguments and commands that make it so; the code of enqueue and worker; words of the error.
type Case<'a> = (&'a str, &'a [&'a str], &'a [&'a [&'a str]], i32, &'a str);

const CASES: [Case<'_>; 11] = [
    (
        "eviction",
        &["--maxmemory-policy", "allkeys-lru"],
        &[],
        2,
        "CONFIG SET maxmemory-policy noeviction",
    ),
    (
        "a replica of an absent server",
        &["--replicaof", "127.0.0.1", "1"],
        &[],
        2,
        "it is a replica of 127.0.0.1:1",
    ),
    ("a cluster without slots", &["--cluster-enabled", "yes"], &[], 2, "cluster mode"),
    ("no memory", &["--maxmemory", "100kb"], &[], 4, "raise maxmemory"),
    ("no right to a command", &[], &[&["ACL", "SETUSER", "default", "-srem"]], 2, "SREM"),
    (
        "no right to scripts",
        &[],
        &[&["ACL", "SETUSER", "default", "-@scripting"]],
        2,
        "`ACL SETUSER default +script",
    ),
    (
        "no right to keys",
        &[],
        &[&["ACL", "SETUSER", "default", "resetkeys", "~mine:*"]],
        2,
        "`ACL SETUSER default ~agrpo:*",
    ),
    ("a renamed command", &["--rename-command", "ZPOPMIN", ""], &[], 2, "ZPOPMIN"),
    (
        "a key of another type",
        &[],
        &[&["LPUSH", "agrpo:{q8130}:active", "x"]],
        2,
        "agrpo:{q8130}:active is a list and has to be a set",
    ),
    (
        "a lease of another type",
        &[],
        &[&["LPUSH", "agrpo:{q8130}:lease:x", "x"]],
        2,
        "redis-cli DEL 'agrpo:{q8130}:lease:x'",
    ),
    ("a password", &["--requirepass", "s3cret"], &[], 2, "AGRPO_REDIS_PASSWORD"),
];

#[test]
#[expect(clippy::print_stdout, reason = "prints the table of errors")]
fn what_cannot_serve_is_reported_before_anything_is_done() {
    for (what, arguments, commands, code, words) in CASES {
        let redis = unfit(arguments, commands);
        let program = Program::new(&[("AGRPO_REDIS", &redis.url())]);
        let before = if what == "a password" || what.starts_with("no right") {
            vec![]
        } else {
            keys(&redis)
        };
        let doctor = program.run(&["doctor"]);
        assert_eq!(doctor.code, Some(4), "{what}: {}", doctor.stdout);
        let lines: Vec<&str> =
            doctor.stdout.lines().filter(|line| line.contains("  redis  ")).collect();
        let bad = lines
            .iter()
            .find(|line| line.starts_with("BAD"))
            .unwrap_or_else(|| panic!("{what}: {lines:?}"));
        println!("{what} | {bad} | {code}");
        assert!(bad.contains(words), "{what}: {bad}");
        for verb in [&["enqueue", "run.toml"][..], &["worker", "--exit-when-idle", "1"]] {
            let said = program.run(verb);
            assert_eq!(said.code, Some(code), "{what}: {verb:?}: {}", said.stderr);
            assert!(said.stderr.contains(words), "{what}: {verb:?}: {}", said.stderr);
        }
        if !before.is_empty() {
            assert_eq!(keys(&redis), before, "{what}: nothing is left behind");
        }
    }
}

#[test]
fn what_is_odd_and_can_serve_is_a_note() {
    let redis = unfit(&["--appendonly", "no", "--cluster-enabled", "yes"], &[]);
    let slots: Vec<String> = (0..16_384).map(|slot: u32| slot.to_string()).collect();
    redis::cmd("CLUSTER").arg("ADDSLOTS").arg(&slots).exec(&mut connection(&redis)).unwrap();
    let program = Program::new(&[("AGRPO_REDIS", &redis.url())]);
    // A node takes a moment to call its cluster complete.
    let said = wait_for("the whole cluster", || {
        Some(program.run(&["doctor"])).filter(|said| said.code == Some(0))
    });
    for words in [
        "note  redis      Redis is in cluster mode",
        "note  redis      Redis does not save its data to disk",
        "ok    clock",
    ] {
        assert!(said.stdout.contains(words), "{words}: {}", said.stdout);
    }
    // And a run goes through it.
    for verb in [&["enqueue", "run.toml"][..], &["worker", "--exit-when-idle", "4"]] {
        let said = program.run(verb);
        assert_eq!(said.code, Some(0), "{}", said.stderr);
    }
    assert_eq!(program.policy().1, "done");
}

/// A library that shifts the C library's clock by the number in a file.
fn wrong_clock() -> tempfile::TempPath {
    let library = tempfile::Builder::new().suffix(".so").tempfile().unwrap().into_temp_path();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/fault/clock.c");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source);
    assert!(cc.status().unwrap().success(), "clock.c does not compile");
    library
}

#[test]
fn doctor_says_how_far_the_clock_of_redis_is_off() {
    let library = wrong_clock();
    for (seconds, side) in [("-7200", "behind"), ("7200", "ahead of")] {
        let redis = RedisServer::start(&[]);
        let program = Program::new(&[
            ("AGRPO_REDIS", &redis.url()),
            ("LD_PRELOAD", library.to_str().unwrap()),
            ("AGRPO_CLOCK_OFF_S", seconds),
        ]);
        let said = program.run(&["doctor"]);
        assert_eq!(said.code, Some(4), "{}", said.stdout);
        let line = said.stdout.lines().find(|line| line.contains("BAD   clock")).unwrap();
        assert!(line.contains(side) && line.contains("7200.") || line.contains("7199."), "{line}");
        assert!(line.contains("timedatectl set-ntp true"), "{line}");
    }
}

/// Redis' clock was two hours ahead, and is set back while workers are at it.
#[test]
fn a_redis_whose_clock_is_set_back_holds_up_no_worker() {
    let (library, moved) = (wrong_clock(), tempfile::NamedTempFile::new().unwrap());
    let set = |seconds: i64| moved.as_file().write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    set(7200);
    let redis = RedisServer::start_with(
        &[],
        &[
            ("LD_PRELOAD", library.to_str().unwrap()),
            ("AGRPO_CLOCK_FILE", moved.path().to_str().unwrap()),
        ],
    );
    let ahead = Program::new(&[
        ("AGRPO_REDIS", &redis.url()),
        ("LD_PRELOAD", library.to_str().unwrap()),
        ("AGRPO_CLOCK_OFF_S", "7200"),
    ]);
    // A worker is killed while it computes a stage: its lease, its registration and its hint stay.
    ahead.change(
        "steps = 100\nbatch = 32\nsteps_per_stage = 50\n",
        "steps = 800\nbatch = 32\nsteps_per_stage = 800\n",
    );
    assert_eq!(ahead.run(&["enqueue", "run.toml"]).code, Some(0));
    let mut worker = ahead.start(&["worker"]);
    wait_for_key(&redis, |key| key.contains(":lease:"));
    worker.kill().unwrap();
    worker.wait().unwrap();
    set(0);
    let store = ahead.store();
    let now =
        Program::new(&[("AGRPO_REDIS", &redis.url()), ("AGRPO_STORE", store.to_str().unwrap())]);
    let said = now.run(&["worker", "--exit-when-idle", "30"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert!(said.stderr.contains("the clock of Redis was ahead"), "{}", said.stderr);
    assert_eq!(now.policy().1, "done");
}

/// Whatever a worker waits for, the second SIGTERM ends it.
#[test]
fn the_second_signal_ends_a_worker_whose_redis_says_nothing_any_more() {
    let redis = RedisServer::start(&[]);
    let program = Program::new(&[("AGRPO_REDIS", &redis.url())]);
    let mut worker = program.start(&["worker", "--grace", "840"]);
    // Not the key of the trial, which the worker writes before it listens for signals.
    wait_for_key(&redis, |key| key == "agrpo:{q8130}:workers:about");
    // It stays connected and is never answered.
    redis.stop();
    for _ in 0..2 {
        let kill = Command::new("kill").arg(worker.id().to_string()).status().unwrap();
        assert!(kill.success());
        std::thread::sleep(Duration::from_millis(300));
    }
    let ended = wait_for("the end of the worker", || worker.try_wait().unwrap());
    assert_eq!(ended.code(), Some(0));
}
