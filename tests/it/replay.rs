//! `agrpo replay`: every kind of stage is computed again, bit for bit; and its errors about damage.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::support::program::{Program, RUN};

/// A finished run, and the manifest of each kind whose name is the greatest: (digest, path). Gradients
/// of shards without any advantage are zero, and would freeze nothing.
fn finished() -> (Program, BTreeMap<String, (String, PathBuf)>) {
    let program = Program::new(&[]);
    // Written out, as the bytes that are frozen are older than today's default.
    let run = RUN.replace("[estimator]\n", "[estimator]\nstrata = \"shard\"\n");
    std::fs::write(program.folder().join("run.toml"), run).unwrap();
    program.json(&["run", "run.toml", "--json"]);
    let mut of_kind = BTreeMap::new();
    let stages = std::fs::read_dir(program.store().join("stages")).unwrap();
    let paths: BTreeSet<PathBuf> = stages.map(|entry| entry.unwrap().path()).collect();
    for path in paths {
        let manifest: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let kind = manifest["spec"].as_object().unwrap().keys().next().unwrap().clone();
        if manifest["metrics"]["states"].as_f64() == Some(0.0) {
            continue;
        }
        let digest = manifest["stage"].as_str().unwrap().to_owned();
        of_kind.insert(kind, (digest, path));
    }
    (program, of_kind)
}

fn manifest(path: &PathBuf) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn every_kind_of_stage_is_identical() {
    let (program, of_kind) = finished();
    let kinds: Vec<_> = of_kind.keys().map(String::as_str).collect();
    assert_eq!(kinds, ["evaluation", "gradient", "reward", "rollout", "sft", "update"]);
    for (kind, (digest, _)) in &of_kind {
        let said = program.run(&["replay", digest]);
        assert_eq!(said.code, Some(0), "{kind}: {}", said.stderr);
        assert!(said.stdout.trim_end().ends_with("identical"), "{kind}: {}", said.stdout);
    }
}

#[test]
fn a_flipped_byte_of_an_input_is_named_with_exit_5() {
    let (program, of_kind) = finished();
    let (digest, path) = &of_kind["reward"];
    let blob = manifest(path)["spec"]["reward"]["trajectories"].as_str().unwrap().to_owned();
    let path = program.store().join("cas").join(&blob);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let said = program.run(&["replay", digest]);
    assert_eq!(said.code, Some(5), "{}", said.stderr);
    assert!(said.stderr.contains(&blob), "{}", said.stderr);
}

#[test]
fn an_altered_record_is_named_with_exit_5_or_3() {
    let (program, of_kind) = finished();
    let (digest, path) = &of_kind["gradient"];
    let mut record = manifest(path);
    record["outputs"]["gradient"]["digest"] = "0".repeat(64).into();
    let place = path.strip_prefix(program.store()).unwrap().to_str().unwrap().to_owned();
    std::fs::write(path, serde_json::to_vec(&record).unwrap()).unwrap();
    let said = program.run(&["replay", digest]);
    assert_eq!(said.code, Some(5), "{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains(&format!("{place} in file://")), "{}", said.stderr);
    // The same record, with a checksum of its new content.
    let fields = record.as_object_mut().unwrap();
    fields.remove("format");
    fields.remove("sha256");
    std::fs::write(path, agrpo_spec::record::seal(&record)).unwrap();
    let said = program.run(&["replay", digest]);
    assert_eq!(said.code, Some(3), "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("differs") && said.stdout.contains("gradient"), "{}", said.stdout);
}

/// What `cpu-portable` promises: these bytes, on every x86-64 machine with AVX2. If this test fails, a
/// change has altered what a stage computes: raise its version in `StageKind::version` with it, or
/// undo it. Two stages of one policy have one name as long as neither changes.
#[test]
fn the_bytes_of_every_kind_are_frozen() {
    let (_program, of_kind) = finished();
    let mut frozen = vec![];
    for (kind, (_, path)) in &of_kind {
        let record = manifest(path);
        for (name, output) in record["outputs"].as_object().unwrap() {
            let (version, digest) = (&record["spec"][kind]["version"], &output["digest"]);
            frozen.push(format!("{kind} v{version} {name} {}", &digest.as_str().unwrap()[..12]));
        }
    }
    insta::assert_snapshot!(frozen.join("\n"), @r"
    evaluation v6 evaluation 0cf17a7620d3
    gradient v6 gradient d0e9e3e1c6fc
    reward v4 rewards 6864875fc2c8
    rollout v6 trajectories 67fdeb97b361
    sft v4 optimizer 806c18b9723a
    sft v4 policy b87ecec872f0
    sft v4 policy/config.json 7d1ab0e8487c
    sft v4 policy/model.safetensors 963adeca13a9
    sft v4 policy/tokenizer.json 101f7ed9b3b5
    update v4 optimizer 968644b8dbb6
    update v4 policy 56eefb91e696
    update v4 policy/config.json 7d1ab0e8487c
    update v4 policy/model.safetensors 9705f0604cbc
    update v4 policy/tokenizer.json 101f7ed9b3b5
    ");
}
