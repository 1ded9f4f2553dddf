//! Small random checkpoints of other families than LLaDA's: imported, trained with adapters on a dataset in words, and
//! replayed. What their passes compute is compared with their own code in `golden/families`.

use std::fs;
use std::path::Path;

use agrpo_compute::model::{ModelConfig, Policy};
use agrpo_spec::{Family, ModelShape, Seed};

use crate::checkpoint::{RUN, TAGS, program, tokenizer};
use crate::lora::manifests;
use crate::support;
use crate::support::program::Program;

/// A checkpoint with the special tokens of ChatML in place of LLaDA's.
fn checkpoint(folder: &Path, shape: &ModelShape) {
    let special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", shape.family.traits().chat.mask];
    let end = 256 + i64::try_from(TAGS.len()).unwrap();
    let config = ModelConfig::new(shape, 272, end, end + 3, 512);
    let policy = Policy::draw(config, 0.1, Seed::new(2)).unwrap();
    // The same memory as the policy's. Whole tags are likely.
    let head = &policy.parameters()["lm_head.weight"];
    drop(head.narrow(0, 0, 256).zero_());
    drop(head.narrow(0, 256, 6).g_mul_scalar_(4.0));
    drop(head.narrow(0, 262, 10).zero_());
    fs::remove_dir_all(folder).unwrap();
    fs::create_dir(folder).unwrap();
    for (name, content) in policy.to_files().unwrap() {
        fs::write(folder.join(name), content.bytes(1 << 24).unwrap()).unwrap();
    }
    fs::write(folder.join("tokenizer.json"), tokenizer(&special).to_string()).unwrap();
}

/// A folder with a checkpoint of this shape, and a run file that starts from what `agrpo import` prints of it; with that.
fn imported(shape: &ModelShape) -> (Program, String) {
    let program = program(&[]);
    checkpoint(&program.folder().join("checkpoint"), shape);
    let said = program.run(&["import", "checkpoint"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let (before, rest) = RUN.split_once("[checkpoint]").unwrap();
    let (_, after) = rest.split_once("[lora]").unwrap();
    let text = format!("{before}{}\n[lora]{after}", said.stdout);
    fs::write(program.folder().join("run.toml"), &text).unwrap();
    let (_, shape) = said.stdout.split_once("[checkpoint.shape]\n").unwrap();
    (program, shape.to_owned())
}

/// Rollouts that are as likely to the learner as to the sampler, to the bit, and stages that replay.
fn trains(program: &Program) {
    let said = program.run(&["run", "run.toml"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    for stage in manifests(program, "gradient") {
        assert_eq!(stage["metrics"]["ratio_deviation"], 0.0);
    }
    let replayed = program.run(&["replay", "--run", "words"]);
    assert_eq!(replayed.code, Some(0), "{}", replayed.stderr);
}

#[test]
fn a_dream_is_imported_adapted_and_replayed() {
    let shape = ModelShape {
        family: Family::Dream,
        n_kv_heads: Some(2),
        ..support::checkpoint::shape(32, 2, 4, 48)
    };
    let (program, printed) = imported(&shape);
    insta::assert_snapshot!(printed, @r#"
    family = "dream"
    d_model = 32
    n_layers = 2
    n_heads = 4
    n_kv_heads = 2
    mlp_hidden_size = 48
    embedding_size = 272
    max_sequence_length = 512
    "#);
    trains(&program);
}

#[test]
fn an_sdar_is_imported_and_samples_in_its_own_blocks() {
    let shape = ModelShape {
        family: Family::Sdar,
        n_kv_heads: Some(2),
        head_size: Some(16),
        attention_block: Some(4),
        ..support::checkpoint::shape(32, 2, 4, 48)
    };
    let (program, printed) = imported(&shape);
    insta::assert_snapshot!(printed, @r#"
    family = "sdar"
    d_model = 32
    n_layers = 2
    n_heads = 4
    n_kv_heads = 2
    head_size = 16
    attention_block = 4
    mlp_hidden_size = 48
    embedding_size = 272
    max_sequence_length = 512
    "#);
    let refused = program.run(&["run", "run.toml"]);
    insta::assert_snapshot!(refused.stderr, @"error: run.toml: rollout.block_tokens = 8: expected 4: SDAR attends in blocks of checkpoint.shape.attention_block = 4");
    program.change("block_tokens = 8", "block_tokens = 4");
    trains(&program);
    let refused = program.run(&["evaluate", "words", "--grid", "16x8", "--block-tokens", "8"]);
    insta::assert_snapshot!(refused.stderr, @"error: --grid 16x8: evaluation.block_tokens = 8: expected 4: SDAR attends in blocks of checkpoint.shape.attention_block = 4");
    let refused = program.run(&["evaluate", "words", "--cache", "prefix"]);
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.starts_with("error: evaluation.cache = \"prefix\": expected \"none\""));
}
