//! What gradient stages promise beyond their bytes: memory that does not grow with k, ratios that begin
//! at 1, and several updates from the same trajectories that survive a crash.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::support::program::{Program, RUN};
use crate::support::run_file::run_file;

/// 128 completions of 16 steps: at k = 24 nearly all of their 2,048 states are computed. Held at once
/// with what their gradient needs, they would take over a gigabyte; the program itself takes a fifth.
fn wide(k: u32) -> String {
    let text = run_file(&[
        ("name", &format!("\"k{k}\"")),
        ("model.d_model", "96"),
        ("model.n_layers", "3"),
        ("model.n_heads", "4"),
        ("model.mlp_hidden_size", "256"),
        ("sft.steps", "2"),
        ("sft.batch", "16"),
        ("sft.micro_batch", "16"),
        ("rollout.prompts", "16"),
        ("rollout.group", "8"),
        ("rollout.shards", "1"),
        ("rollout.micro_batch", "32"),
        ("rollout.completion_tokens", "16"),
        ("rollout.block_tokens", "16"),
        ("rollout.steps", "16"),
        ("reward.weights", "{ cells = 1.0 }"),
        ("estimator.k", &k.to_string()),
        ("estimator.micro_batch", "16"),
        ("training.iterations", "1"),
        ("evaluation.problems", "1"),
        ("evaluation.every", "1"),
        ("evaluation.steps", "[16]"),
        ("evaluation.micro_batch", "32"),
    ]);
    text.replace("[task.countdown]", "[task.sudoku]")
}

/// All gradient manifests in the store.
fn gradients(program: &Program) -> Vec<Value> {
    let stages = std::fs::read_dir(program.store().join("stages")).unwrap();
    let paths: Vec<PathBuf> = stages.map(|entry| entry.unwrap().path()).collect();
    let read = |path: &PathBuf| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let manifests = paths.iter().map(read);
    manifests.filter(|manifest: &Value| manifest["spec"]["gradient"].is_object()).collect()
}

/// A run whose only gradient stage draws `k` samples for a completion, and that stage's manifest.
fn drawn(k: u32) -> (Program, Value) {
    let program = Program::new(&[]);
    std::fs::write(program.folder().join("wide.toml"), wide(k)).unwrap();
    program.json(&["run", "wide.toml", "--json"]);
    let [manifest] = gradients(&program).try_into().unwrap();
    (program, manifest)
}

/// Peak resident memory in KiB of a replay, which has to succeed.
fn peak_of_replay((program, manifest): &(Program, Value), threads: &str) -> u64 {
    let stage = manifest["stage"].as_str().unwrap();
    let mut child = program.start(&["replay", stage, "--threads", threads]);
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    // The mark only rises, so the last look before the end misses at most a few milliseconds.
    while child.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let value = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        peak = peak.max(value.unwrap_or(0));
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(child.wait().unwrap().success());
    peak
}

/// Two threads are compared from k = 8 on: the eight passes of k = 1 do not always fill what the allocator keeps for
/// each of them.
#[test]
fn memory_does_not_grow_with_k() {
    let [one, eight, many] = [1, 8, 24].map(drawn);
    let states = |run: &(Program, Value)| run.1["metrics"]["states"].as_f64().unwrap();
    for (few, times, threads) in [(&one, 8.0, "1"), (&eight, 1.8, "2")] {
        assert!(states(&many) > times * states(few), "the comparison says nothing");
        let (less, more) = (peak_of_replay(few, threads), peak_of_replay(&many, threads));
        let growth = more as f64 / less as f64;
        assert!((0.95..1.05).contains(&growth), "{less} to {more} KiB on {threads} threads");
    }
}

const EVERY_TOKEN: &str = "k = \"all\"\nhorizon = \"sampled\"\nkl = 0.01\nmicro_batch = 7";

/// Trajectories of the policy that is differentiated: the learner finds the sampler's probabilities to
/// the bit, whatever the order of positions and the filters. Every step of every completion is looked at:
/// k is all, and with a divergence no row is left out.
#[test]
fn ratios_of_fresh_trajectories_are_exactly_one() {
    for position in ["random", "low-confidence", "entropy", "margin", "left-to-right"] {
        for filter in ["top_k = 12\ntop_p = 0.9", "top_k = 0\ntop_p = 1.0\ntemperature = 1.0"] {
            let program = Program::new(&[]);
            let text = RUN
                .replace("top_k = 12\n", &format!("{filter}\nposition = \"{position}\"\n"))
                .replace("k = 4\nmicro_batch = 32", EVERY_TOKEN)
                .replace("iterations = 4", "iterations = 2");
            std::fs::write(program.folder().join("run.toml"), text).unwrap();
            program.json(&["run", "run.toml", "--json"]);
            let metric = |manifest: &Value, name: &str| manifest["metrics"][name].as_f64();
            let manifests = gradients(&program);
            for manifest in &manifests {
                assert!(metric(manifest, "states") > Some(0.0));
                let deviation = metric(manifest, "ratio_deviation");
                assert_eq!(deviation, Some(0.0), "{position}, {filter}");
            }
        }
    }
}

/// Three updates from the same trajectories, with a divergence from the base: killed in between, the run
/// ends in the same policy; and only the first update's ratios are 1.
#[test]
fn several_updates_from_the_same_trajectories_survive_a_crash() {
    let text = RUN.replace("k = 4\n", "k = 4\ninner_updates = 3\nkl = 0.04\n");
    let finished = |kills: u64| {
        let program = Program::new(&[]);
        std::fs::write(program.folder().join("run.toml"), &text).unwrap();
        for kill in 0..kills {
            let mut child = program.start(&["run", "run.toml"]);
            std::thread::sleep(Duration::from_millis(500 + 150 * kill));
            child.kill().unwrap();
            child.wait().unwrap();
        }
        program.json(&["run", "run.toml", "--json"]);
        program
    };
    let (whole, killed) = (finished(0), finished(4));
    assert_eq!(whole.policy(), killed.policy());
    let mut later = 0.0f64;
    for manifest in gradients(&whole) {
        let deviation = manifest["metrics"]["ratio_deviation"].as_f64().unwrap();
        match manifest["spec"]["gradient"]["inner"].as_u64() {
            Some(1) => assert_eq!(deviation, 0.0),
            _ => later = later.max(deviation),
        }
    }
    assert!(later > 1e-4, "the policy moved, but its ratios did not: {later}");
}

/// Rollouts in less time are rollouts like others: replayed to the bit and learned from. With a threshold
/// ratios stay 1, as every pass is exact; with a cache they are the weights that correct for it.
#[test]
fn rollouts_with_a_cache_or_a_threshold_are_learned_from_and_replayed() {
    for (fast, is_exact) in [("threshold = 0.3", true), ("cache = \"dual\"", false)] {
        let program = Program::new(&[]);
        let fast = format!("top_k = 12\nposition = \"low-confidence\"\n{fast}\n");
        let text = RUN
            .replace("top_k = 12\n", &fast)
            .replace(
                "completion_tokens = 8\nblock_tokens = 8",
                "completion_tokens = 8\nblock_tokens = 4",
            )
            .replace("k = 4\nmicro_batch = 32", EVERY_TOKEN)
            .replace("iterations = 4", "iterations = 1");
        std::fs::write(program.folder().join("run.toml"), text).unwrap();
        program.json(&["run", "run.toml", "--json"]);
        for manifest in gradients(&program) {
            let metric = |name: &str| manifest["metrics"][name].as_f64().unwrap();
            assert!(metric("states") > 0.0, "{fast}");
            assert_eq!(metric("ratio_deviation") == 0.0, is_exact, "{fast}");
            let said = program.run(&["replay", manifest["stage"].as_str().unwrap()]);
            assert_eq!(said.code, Some(0), "{fast}: {}{}", said.stdout, said.stderr);
        }
        let stages = std::fs::read_dir(program.store().join("stages")).unwrap();
        let paths = stages.map(|entry| entry.unwrap().path());
        for path in paths {
            let record: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
            if record["spec"]["rollout"].is_object() {
                let passes = record["metrics"]["passes"].as_f64().unwrap();
                assert_eq!(passes < 8.0, is_exact, "{fast}: {passes}");
                let said = program.run(&["replay", record["stage"].as_str().unwrap()]);
                assert_eq!(said.code, Some(0), "{fast}: {}{}", said.stdout, said.stderr);
            }
        }
    }
}
