//! Fidelity: the model, the sampler, adapters, the estimators and the graders against what the reference
//! implementations computed (`tests/golden/`, or the folder that `AGRPO_GOLDEN` names). Here: how they are read.
//!
//! Sizes, lengths and settings are read from the folder; a test names only its tolerance.

use std::collections::BTreeMap;
use std::path::PathBuf;

use agrpo_compute::model::Policy;
use agrpo_spec::Files;
use serde_json::Value;
use tch::{Kind, Tensor};

mod families;
mod generate;
mod gradient;
mod model;
mod peft;
mod rank;
mod rivals;
mod verdicts;

fn folder() -> PathBuf {
    let ours = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    std::env::vars_os()
        .find(|(name, _)| name == "AGRPO_GOLDEN")
        .map_or_else(|| ours.into(), |(_, path)| path.into())
}

fn tensors(path: &str) -> BTreeMap<String, Tensor> {
    Tensor::read_safetensors(folder().join(path)).unwrap().into_iter().collect()
}

fn cases(path: &str) -> Vec<Value> {
    serde_json::from_slice(&std::fs::read(folder().join(path)).unwrap()).unwrap()
}

/// The files of the folder's checkpoint, which may be in one part or in several.
fn checkpoint() -> Files {
    let files = std::fs::read_dir(folder().join("llada_tiny")).unwrap();
    let mut model = BTreeMap::new();
    for path in files.map(|entry| entry.unwrap().path()) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name == "config.json" || name.starts_with("model") && name.ends_with(".safetensors") {
            model.insert(name, std::fs::read(path).unwrap().into());
        }
    }
    model
}

fn policy() -> Policy {
    agrpo_compute::use_one_thread();
    Policy::from_folder(&checkpoint()).unwrap()
}

/// A policy of the checkpoint's shape with other weights.
fn policy_of(weights: &[(String, Tensor)]) -> Policy {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    Tensor::write_safetensors(weights, &path).unwrap();
    let mut files = checkpoint();
    files.retain(|name, _| name == "config.json");
    files.insert("model.safetensors".into(), std::fs::read(path).unwrap().into());
    Policy::from_folder(&files).unwrap()
}

fn floats(tensor: &Tensor) -> Vec<f64> {
    tensor.to_kind(Kind::Double).flatten(0, -1).try_into().unwrap()
}

fn ids(tensor: &Tensor) -> Vec<i64> {
    tensor.flatten(0, -1).try_into().unwrap()
}

fn count(case: &Value, name: &str) -> u32 {
    u32::try_from(case[name].as_u64().unwrap()).unwrap()
}
