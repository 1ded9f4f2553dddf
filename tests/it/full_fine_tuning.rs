//! All weights of a checkpoint in bf16, trained: passes round the weights, updates do not.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use crate::checkpoint::{RUN, program};
use crate::lora::manifests;
use crate::support::program::Program;

/// A run without adapters, at a rate far below the resolution of bf16.
fn trained(estimator: &str) -> Program {
    let program = program(&[]);
    let (before, rest) = RUN.split_once("[lora]").unwrap();
    let (_, after) = rest.split_once("[rollout]").unwrap();
    let text = format!("{before}[rollout]{after}")
        .replace("learning_rate = 1e-2", "learning_rate = 1e-6")
        .replace("iterations = 2", "iterations = 3")
        .replace("[estimator]\n", &format!("[estimator]\n{estimator}"));
    std::fs::write(program.folder().join("run.toml"), text).unwrap();
    let said = program.run(&["run", "run.toml", "--workers", "2"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    program
}

/// The tensors of a folder's only file of weights.
fn weights(path: std::path::PathBuf) -> BTreeMap<String, Tensor> {
    Tensor::read_safetensors(path).unwrap().into_iter().collect()
}

#[test]
fn updates_below_bf16_s_resolution_add_up_in_f32_and_replay() {
    let program = trained("");
    for stage in manifests(&program, "gradient") {
        assert_eq!(stage["metrics"]["ratio_deviation"], 0.0);
    }
    let replayed = program.run(&["replay", "--run", "words"]);
    assert_eq!(replayed.code, Some(0), "{}", replayed.stderr);
    let said = program.run(&["export", "words", "--format", "hf", "-o", "out"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let base = weights(program.folder().join("checkpoint/model.safetensors"));
    let moved = weights(program.folder().join("out/model.safetensors"));
    assert!(base.keys().eq(moved.keys()));
    let (mut changed, mut lost, mut all) = (0, 0, 0);
    let count = |of: Tensor| of.sum(Kind::Int64).int64_value(&[]);
    for (name, before) in &base {
        let after = &moved[name];
        assert_eq!(after.kind(), Kind::Float, "{name}");
        let half = |of: &Tensor| of.to_kind(Kind::BFloat16);
        let is_moved = after.ne_tensor(before);
        let is_lost = half(after).eq_tensor(&half(before)).logical_and(&is_moved);
        changed += count(is_moved);
        lost += count(is_lost);
        all += i64::try_from(after.numel()).unwrap();
    }
    assert!(changed > all / 2, "{changed} of {all} weights moved");
    // Rows of zeros have any move in bf16 too.
    assert!(lost > changed / 2, "bf16 would have kept {} of {changed} moves", changed - lost);
}

/// One stage for all inner updates keeps the masters in memory, and leaves the same policy.
#[test]
fn fused_updates_leave_the_policy_of_separate_stages() {
    let both = ["", "fused_updates = true\n"]
        .map(|fused| trained(&format!("inner_updates = 2\n{fused}")).policy());
    assert_eq!(both[0], both[1]);
}
