//! `estimator.fused_updates`: all inner updates of an iteration are one stage that leaves the policy of the separate
//! stages, however it is computed, and writes a small part of their bytes.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::lora::manifests;
use crate::support::program::{Program, RUN};
use crate::support::redis::RedisServer;

const LORA: &str = "\n[lora]\nrank = 4\nalpha = 8.0\nhead = true\n";

/// 24 inner updates with a divergence from the base, fused or not.
fn text(fused: bool) -> String {
    let keys = format!("k = 4\ninner_updates = 24\nkl = 0.04\nfused_updates = {fused}\n");
    RUN.replace("k = 4\n", &keys).replace("iterations = 4", "iterations = 2")
}

/// A folder with the run file.
fn program(text: &str, environment: &[(&str, &str)]) -> Program {
    let program = Program::new(environment);
    std::fs::write(program.folder().join("run.toml"), text).unwrap();
    program
}

fn finished(text: &str, arguments: &[&str]) -> Program {
    let program = program(text, &[]);
    program.json(&[&["run", "run.toml", "--json"][..], arguments].concat());
    assert_eq!(program.policy().1, "done");
    program
}

/// Bytes of all blobs that stages between rewards and new policies have made, each counted once.
fn written(program: &Program) -> u64 {
    let made = |kind| manifests(program, kind).into_iter().map(|of| of["outputs"].clone());
    let before: Vec<Value> = made("sft").collect();
    let is_of_base =
        |digest: &str| before.iter().any(|outputs| outputs.to_string().contains(digest));
    let mut blobs = BTreeMap::new();
    for outputs in ["gradient", "update", "updates"].into_iter().flat_map(made) {
        for record in outputs.as_object().unwrap().values() {
            let digest = record["digest"].as_str().unwrap().to_owned();
            if !is_of_base(&digest) {
                blobs.insert(digest, record["size"].as_u64().unwrap());
            }
        }
    }
    blobs.values().sum()
}

#[test]
fn it_ends_in_the_policy_of_the_separate_stages_and_writes_under_5_percent_of_their_bytes() {
    for lora in ["", LORA] {
        let separate = finished(&format!("{}{lora}", text(false)), &[]);
        let fused = finished(&format!("{}{lora}", text(true)), &["--threads", "3"]);
        assert_eq!(fused.policy(), separate.policy(), "{lora}");
        let (few, many) = (written(&fused), written(&separate));
        assert!(20 * few < many, "{few} of {many} bytes{lora}");
        let kinds = |program: &Program| {
            ["gradient", "update", "updates"].map(|kind| manifests(program, kind).len())
        };
        assert_eq!((kinds(&separate), kinds(&fused)), ([96, 48, 0], [0, 0, 2]));
        // What is exported are the same numbers, whichever stages measured them.
        let rows = |program: &Program| {
            let said = program.run(&["export", "bytes", "--format", "jsonl", "--output", "-"]);
            assert_eq!(said.code, Some(0), "{}", said.stderr);
            let row = |line: &str| {
                let mut row: BTreeMap<String, Value> = serde_json::from_str(line).unwrap();
                row.retain(|name, _| name.starts_with("train/"));
                row
            };
            said.stdout.lines().map(row).collect::<Vec<_>>()
        };
        assert_eq!(rows(&fused), rows(&separate));
    }
}

#[test]
fn killed_or_terminated_anywhere_it_ends_in_the_same_policy_and_replays() {
    let whole = finished(&text(true), &[]);
    let killed = program(&text(true), &[]);
    for kill in 0..6 {
        let mut child = killed.start(&["run", "run.toml", "--workers", "2"]);
        std::thread::sleep(Duration::from_millis(400 + 150 * kill));
        if kill % 2 == 0 {
            child.kill().unwrap();
        } else {
            assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
        }
        child.wait().unwrap();
    }
    killed.json(&["run", "run.toml", "--json"]);
    assert_eq!(killed.policy(), whole.policy());
    for manifest in manifests(&killed, "updates") {
        let stage = manifest["stage"].as_str().unwrap();
        for command in [&["replay", stage][..], &["show", stage]] {
            let said = killed.run(command);
            assert_eq!(said.code, Some(0), "{command:?}: {}{}", said.stdout, said.stderr);
        }
    }
    let said = killed.run(&["verify"]);
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
}

#[test]
fn two_workers_end_in_the_same_policy() {
    let redis = RedisServer::start(&[]);
    let fleet = program(&text(true), &[("AGRPO_REDIS", &redis.url())]);
    fleet.json(&["enqueue", "run.toml", "--json"]);
    let workers = [(); 2].map(|()| fleet.start(&["worker", "--exit-when-idle", "3"]));
    for mut worker in workers {
        assert!(worker.wait().unwrap().success());
    }
    assert_eq!(fleet.policy(), finished(&text(true), &[]).policy());
}

#[test]
fn a_value_of_another_type_is_refused_with_its_line() {
    let wrong = program(&text(true).replace("fused_updates = true", "fused_updates = 1"), &[]);
    let said = wrong.run(&["run", "run.toml", "--dry-run"]);
    assert_eq!(said.code, Some(2), "{}", said.stderr);
    let expected = "`fused_updates = 1`: expected true or false";
    assert!(said.stderr.contains(expected), "{}", said.stderr);
}
