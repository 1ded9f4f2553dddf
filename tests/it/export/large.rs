//! A model larger than a window: merged while little of it is in memory.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use agrpo_compute::model::ModelConfig;
use agrpo_spec::ArtifactDigest;
use agrpo_store::Store;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

use crate::support::checkpoint;

/// Peak memory that a merge may take beside what it takes for a model of next to nothing, in KiB.
const BESIDE: u64 = 64 << 10;

fn config(d_model: u32, n_layers: u32) -> ModelConfig {
    let shape = checkpoint::shape(d_model, n_layers, 4, 4 * d_model);
    ModelConfig::new(&shape, 64, 0, 1, 64)
}

/// PEFT's two files for one matrix of every block.
fn adapter(folder: &Path, config: &ModelConfig, rank: usize) {
    let size = |n: i64| usize::try_from(n).unwrap();
    let (d, m) = (size(config.d_model), size(config.mlp_hidden_size));
    let numbers =
        |count: usize| (0..count).flat_map(|_| 0.01f32.to_le_bytes()).collect::<Vec<u8>>();
    let mut tensors = BTreeMap::new();
    for block in 0..config.n_layers {
        let name = |matrix: char| {
            format!(
                "base_model.model.model.transformer.blocks.{block}.ff_proj.lora_{matrix}.weight"
            )
        };
        tensors.insert(name('A'), ([rank, d], numbers(rank * d)));
        tensors.insert(name('B'), ([m, rank], numbers(m * rank)));
    }
    let views = tensors.iter().map(|(name, (shape, data))| {
        (name, TensorView::new(Dtype::F32, shape.to_vec(), data).unwrap())
    });
    let bytes = safetensors::serialize(views, None).unwrap();
    fs::write(folder.join("adapter_model.safetensors"), bytes).unwrap();
    let settings = json!({
        "peft_type": "LORA", "r": rank, "lora_alpha": 8, "target_modules": ["ff_proj"],
        "init_lora_weights": true,
    });
    fs::write(folder.join("adapter_config.json"), settings.to_string()).unwrap();
}

/// A policy with an adapter in a store, and how many bytes of weights it has.
fn stored(folder: &Path, config: &ModelConfig, rank: usize) -> (ArtifactDigest, u64) {
    let model = folder.join("model");
    fs::create_dir_all(&model).unwrap();
    let bytes = checkpoint::write(&model, config, 2);
    adapter(&model, config, rank);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let digest = runtime.block_on(async {
        let store = folder.join(".agrpo").display().to_string();
        let store = Store::open(&store, &[]).await.unwrap();
        store.cas.import_folder(&model, |_| Ok(())).await.unwrap().digest
    });
    fs::remove_dir_all(model).unwrap();
    (digest, bytes)
}

/// The most memory that the merge of a policy took, in KiB, and the bytes of weights.
fn peak(config: &ModelConfig, rank: usize) -> (u64, u64) {
    let folder = tempfile::tempdir().unwrap();
    let (policy, bytes) = stored(folder.path(), config, rank);
    let mut command = Command::new(env!("CARGO_BIN_EXE_agrpo"));
    command.args(["export", &policy.to_string(), "--format", "merged", "-o", "merged"]);
    command.current_dir(folder.path()).env_clear().stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    let ended = loop {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let found = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        peak = peak.max(found.unwrap_or(0));
        match child.try_wait().unwrap() {
            Some(ended) => break ended,
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    assert!(ended.success() && peak > 0);
    let written = fs::read_dir(folder.path().join("merged")).unwrap();
    let sizes = written.map(|entry| entry.unwrap().metadata().unwrap().len());
    assert!(sizes.sum::<u64>() > bytes);
    (peak, bytes)
}

#[test]
fn a_large_model_is_merged_in_little_memory() {
    let (least, _) = peak(&config(16, 1), 2);
    let (most, bytes) = peak(&config(1024, 12), 2);
    assert!(bytes > 3 * (BESIDE << 10), "{bytes} bytes are not large");
    assert!(most < least + BESIDE, "{most} KiB, {least} KiB for a model of next to nothing");
}
