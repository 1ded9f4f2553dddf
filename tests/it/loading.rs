//! A checkpoint of eight shards, from its folder through the store into a policy: the memory that a process takes
//! beside the policy itself.
//!
//! A child process does it, since only a process's own peak can be measured. `AGRPO_LAYERS` makes the model
//! of the long variant larger or smaller; 18 layers take 2 GB.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use agrpo_compute::check_folder;
use agrpo_compute::model::{ModelConfig, Placement, Policy};
use agrpo_store::Store;
use serde_json::{Value, json};
use tch::Kind;

use crate::support::checkpoint;

const SHARDS: usize = 8;
const MIB: u64 = 1 << 20;

fn config(d_model: u32, n_layers: u32) -> ModelConfig {
    let shape = checkpoint::shape(d_model, n_layers, d_model / 128, 3 * d_model);
    ModelConfig::new(&shape, 8192, 8000, 8001, 4096)
}

/// A number from the environment of a test.
fn setting(name: &str) -> Option<String> {
    std::env::vars().find_map(|(found, value)| (found == name).then_some(value))
}

/// Imports and loads in a process of its own; gives what that measured.
fn measured(config: &ModelConfig) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let policy = checkpoint::write(folder.path(), config, SHARDS);
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "loading::child", "--ignored"])
        .env("AGRPO_LOADED", folder.path())
        .status()
        .unwrap();
    assert!(status.success());
    let mut measured: Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("measured.json")).unwrap())
            .unwrap();
    assert_eq!(measured["policy"], policy, "every byte arrived");
    measured["beside"] = json!(measured["peak"].as_u64().unwrap().saturating_sub(policy));
    measured
}

/// The most that this process ever held in memory, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    1024 * line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
}

async fn load(folder: &Path) -> Value {
    let store = Store::open(folder.join("store").to_str().unwrap(), &[]).await.unwrap();
    let start = Instant::now();
    let imported = store.cas.import_folder(folder, check_folder).await.unwrap();
    let import_seconds = start.elapsed().as_secs_f64();
    let store = store.fresh();
    let start = Instant::now();
    let files = store.cas.load_folder(imported.digest).await.unwrap();
    let fetch_seconds = start.elapsed().as_secs_f64();
    let before = peak();
    let start = Instant::now();
    let policy =
        Policy::from_folder_at(&files, Placement { kind: Kind::BFloat16, ..Placement::CPU })
            .unwrap();
    let load_seconds = start.elapsed().as_secs_f64();
    let parameters: BTreeMap<_, _> = policy.parameters();
    let bytes: usize = parameters.values().map(|t| t.numel() * t.kind().elt_size_in_bytes()).sum();
    json!({
        "policy": bytes, "peak": peak(), "peak_before": before, "import_seconds": import_seconds,
        "fetch_seconds": fetch_seconds, "load_seconds": load_seconds,
    })
}

/// What the tests below start; without them there is nothing to load.
#[test]
#[ignore = "a process that other tests start"]
fn child() {
    let Some(folder) = setting("AGRPO_LOADED").map(PathBuf::from) else { return };
    agrpo_compute::use_one_thread();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let measured = runtime.block_on(load(&folder));
    std::fs::write(folder.join("measured.json"), measured.to_string()).unwrap();
}

/// 0.7 GB in shards that are too large for the store's cache: twice the policy would be 0.7 GB beside it.
/// libtorch and the program take most of what is allowed.
#[test]
fn a_checkpoint_is_never_in_memory_twice() {
    let measured = measured(&config(1024, 26));
    assert!(measured["policy"].as_u64().unwrap() > 650 * MIB);
    assert!(measured["beside"].as_u64().unwrap() < 300 * MIB, "{measured}");
}

/// The same with 2 GB, or more with more layers. A checkpoint of 16 GB may take 1.5 GB beside the policy, so
/// this one its share. What was measured is printed.
#[test]
#[ignore = "writes 4 GB"]
#[expect(clippy::print_stderr, reason = "the figures are what it is run for")]
fn a_large_checkpoint_takes_no_more_beside_it() {
    let layers = setting("AGRPO_LAYERS").map_or(18, |text| text.parse().unwrap());
    let measured = measured(&config(2048, layers));
    eprintln!("{measured}");
    let share = measured["policy"].as_u64().unwrap() * 3 / 32;
    assert!(measured["beside"].as_u64().unwrap() <= share, "{measured}");
}
