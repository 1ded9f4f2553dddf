//! Families of models beside LLaDA, each against what its published modelling code computed on a tiny checkpoint.

use std::collections::BTreeMap;
use std::path::Path;

use agrpo_compute::model::Policy;
use agrpo_spec::Files;

use super::folder;

mod forward;
mod generate;
mod llama;

/// The files of a family's tiny checkpoint.
fn checkpoint(name: &str) -> Files {
    in_folder(&folder().join(name))
}

/// A checkpoint's files.
fn in_folder(folder: &Path) -> Files {
    let is_model = |name: &str| {
        name == "config.json" || name.starts_with("model") && name.ends_with(".safetensors")
    };
    let mut model = BTreeMap::new();
    for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if is_model(&name) {
            model.insert(name, std::fs::read(path).unwrap().into());
        }
    }
    model
}

fn policy(name: &str) -> Policy {
    policy_of(&checkpoint(name))
}

fn policy_of(files: &Files) -> Policy {
    agrpo_compute::use_one_thread();
    Policy::from_folder(files).unwrap()
}
