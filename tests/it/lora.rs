//! Runs with LoRA adapters: they resume and replay like any other, and their folders are PEFT's.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::support::program::{Program, RUN};

/// Adapters in every block and the head.
const LORA: &str = "\n[lora]\nrank = 4\nalpha = 8.0\nhead = true\n";

/// A folder with a run file made from the tests' own.
fn program(change: impl Fn(String) -> String) -> Program {
    let program = Program::new(&[]);
    std::fs::write(program.folder().join("run.toml"), change(format!("{}{LORA}", *RUN))).unwrap();
    program
}

/// All manifests of a kind in the store.
pub(crate) fn manifests(program: &Program, kind: &str) -> Vec<Value> {
    let stages = std::fs::read_dir(program.store().join("stages")).unwrap();
    let paths = stages.map(|entry| entry.unwrap().path());
    let read = |path: PathBuf| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    paths.map(read).filter(|manifest: &Value| manifest["spec"][kind].is_object()).collect()
}

/// The files of a manifest's policy and the names of their bytes.
fn folder(manifest: &Value) -> BTreeMap<String, String> {
    let outputs = manifest["outputs"].as_object().unwrap().iter();
    let file = |(name, output): (&String, &Value)| {
        let name = name.strip_prefix("policy/")?.to_owned();
        Some((name, output["digest"].as_str().unwrap().to_owned()))
    };
    outputs.filter_map(file).collect()
}

#[test]
fn a_run_with_an_adapter_ends_in_one_policy_and_leaves_its_base_alone() {
    let finished = |workers: &str, kills: u64| {
        let program = program(|text| text);
        for kill in 0..kills {
            let mut child = program.start(&["run", "run.toml", "--workers", workers]);
            std::thread::sleep(Duration::from_millis(500 + 150 * kill));
            child.kill().unwrap();
            child.wait().unwrap();
        }
        program.json(&["run", "run.toml", "--workers", workers, "--json"]);
        program
    };
    let (whole, killed) = (finished("1", 0), finished("2", 4));
    assert_eq!(whole.policy(), killed.policy());

    let base: Vec<_> = manifests(&whole, "sft").iter().map(folder).collect();
    let weights: Vec<_> = base.iter().map(|files| &files["model.safetensors"]).collect();
    let mut adapters = vec![];
    for manifest in manifests(&whole, "update") {
        let files = folder(&manifest);
        let names: Vec<_> = files.keys().map(String::as_str).collect();
        let expected = [
            "adapter_config.json",
            "adapter_model.safetensors",
            "config.json",
            "model.safetensors",
            "tokenizer.json",
        ];
        assert_eq!(names, expected);
        assert!(weights.contains(&&files["model.safetensors"]), "the base was written again");
        adapters.push(files["adapter_model.safetensors"].clone());
    }
    adapters.sort();
    adapters.dedup();
    assert!(adapters.len() > 1, "no update moved the adapter");

    for kind in ["rollout", "gradient", "update", "evaluation"] {
        for manifest in manifests(&whole, kind).iter().take(2) {
            let said = whole.run(&["replay", manifest["stage"].as_str().unwrap()]);
            assert_eq!(said.code, Some(0), "{kind}: {}{}", said.stdout, said.stderr);
        }
    }
}

/// Gradients and the optimizer's state hold what is trained and nothing else.
#[test]
fn gradients_and_optimizer_state_are_the_adapter_s() {
    let program = program(|text| text.replace("head = true", "head = false"));
    program.json(&["run", "run.toml", "--json"]);
    let names = |manifest: &Value, output: &str| {
        let digest = manifest["outputs"][output]["digest"].as_str().unwrap();
        let bytes = std::fs::read(program.store().join("cas").join(digest)).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let mut names: Vec<String> = file.names().into_iter().map(str::to_owned).collect();
        names.sort();
        names
    };
    // Seven modules of two blocks, an A and a B each; what the gradient is a mean over.
    let of_gradient = names(&manifests(&program, "gradient")[0], "gradient");
    assert_eq!(of_gradient.len(), 28 + 1);
    assert!(of_gradient.iter().all(|name| !name.contains("transformer.ff_out")));
    // Two moments of each; steps and decays.
    assert_eq!(names(&manifests(&program, "update")[0], "optimizer").len(), 56 + 2);
}

/// Learner and sampler find the same probabilities, whatever the rank; merged, they differ by roundings.
/// Ranks up to 24 on more shapes are tried in one process, in stages/compute/estimator/tests/ratios.rs.
#[test]
fn ratios_of_fresh_trajectories_are_exactly_one_unless_merged() {
    let every = "k = \"all\"\nhorizon = \"sampled\"\nkl = 0.01\nmicro_batch = 7";
    let deviations = |rank: u32, merge: bool| {
        let program = program(|text| {
            text.replace("k = 4\nmicro_batch = 32", every)
                .replace("rank = 4", &format!("rank = {rank}\nmerge_for_sampling = {merge}"))
                .replace("learning_rate = 1e-3", "learning_rate = 3e-2")
                .replace("iterations = 4", "iterations = 2")
        });
        program.json(&["run", "run.toml", "--json"]);
        let of = |manifest: &Value| manifest["metrics"]["ratio_deviation"].as_f64().unwrap();
        manifests(&program, "gradient").iter().map(of).collect::<Vec<_>>()
    };
    for rank in (1..=9).chain([12, 20]) {
        let found = deviations(rank, false);
        let is_exact = found.iter().all(|&deviation| deviation == 0.0);
        assert!(found.len() > 1 && is_exact, "rank {rank}: {found:?}");
    }
    let largest = deviations(4, true).into_iter().fold(0.0, f64::max);
    assert!(largest > 0.0 && largest < 1e-4, "{largest}");
}
