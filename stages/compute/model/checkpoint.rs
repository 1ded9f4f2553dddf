//! A checkpoint's folder, read straight into a policy's matrices on its device.
//!
//! Each matrix of the forward pass is allocated once, and the tensors stacked in it are copied into
//! their rows a window at a time: beside the policy itself a few windows are in memory, whatever the
//! checkpoint's size. Before anything is allocated every tensor is accounted for, by the headers alone:
//! none missing, unknown, twice, of another shape or of numbers that are no weights. Names are those of
//! the family's checkpoints; nothing is renamed or guessed.

use std::{cell::RefCell, collections::BTreeMap};

use agrpo_spec::{Files, one_line};
use serde::Deserialize;
use tch::{Device, Kind, Tensor};

use super::{config::ModelConfig, lora, weights::Weights};
use crate::error::{Result, data, data_from, internal, libtorch};
use crate::folder;
use crate::tensors::{Entry, TensorWindows};

const INDEX: &str = "model.safetensors.index.json";

/// `model.safetensors.index.json`, as far as it is understood.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
    metadata: Option<IndexMetadata>,
}

#[derive(Deserialize)]
struct IndexMetadata {
    /// Bytes of all tensors; some tools write it with a fraction.
    total_size: Option<f64>,
}

/// The weights of a folder: headers read, no tensor yet.
#[derive(Debug)]
pub(super) struct Checkpoint {
    /// The files, in the order of their names.
    pub(super) shards: Vec<TensorWindows>,
    places: BTreeMap<String, usize>,
    /// A fault of the index that does not change what is read.
    note: Option<String>,
}

/// Whether a folder's configuration and the headers of its weights match; reads no weights. Returns the configuration;
/// `None` for an adapter's folder without a base, of which only the header is checked. Data error that names file and
/// tensor.
pub(crate) fn check_headers(files: &Files) -> Result<Option<ModelConfig>> {
    if !files.contains_key("config.json") && files.contains_key("adapter_config.json") {
        return lora::open(files).map(|_| None);
    }
    let config = ModelConfig::of_folder(files)?;
    Checkpoint::open(files)?.check(&config)?;
    Ok(Some(config))
}

/// Whether all weights of a folder are finite numbers; reads every byte of them. Data error that names file
/// and tensor. Returns a note on what is wrong with the folder without changing what is read.
pub fn check_weights(files: &Files) -> Result<Option<String>> {
    let checkpoint = Checkpoint::open(files)?;
    checkpoint.shards.iter().try_for_each(TensorWindows::check_finite)?;
    Ok(checkpoint.note)
}

impl Checkpoint {
    /// Reads all headers, and the index where there is one.
    pub(super) fn open(files: &Files) -> Result<Self> {
        let mut checkpoint = Self { shards: vec![], places: BTreeMap::new(), note: None };
        let is_shard = |name: &str| name.ends_with(".safetensors") && name != lora::TENSORS;
        for (name, content) in files.iter().filter(|(name, _)| is_shard(name)) {
            let shard = TensorWindows::open(name, content)?;
            for tensor in shard.tensors.keys() {
                let place = checkpoint.shards.len();
                if let Some(first) = checkpoint.places.insert(tensor.clone(), place) {
                    let (tensor, first) = (one_line(tensor), &checkpoint.shards[first].name);
                    return Err(data(format!(
                        "the checkpoint has {tensor} twice, again in {name}, first in {first}"
                    )));
                }
            }
            checkpoint.shards.push(shard);
        }
        if let Some(bytes) = folder::optional(files, INDEX)? {
            let index = serde_json::from_slice(&bytes)
                .map_err(|error| data_from(format!("{INDEX}: {}", one_line(&error)), error))?;
            checkpoint.check_index(&index, files)?;
            checkpoint.note = checkpoint.wrong_size(&index);
        }
        Ok(checkpoint)
    }

    fn check_index(&self, index: &Index, files: &Files) -> Result<()> {
        let refuse = |problem: String| Err(data(format!("{INDEX}: {problem}")));
        for (tensor, file) in &index.weight_map {
            let but = match self.place(tensor) {
                _ if !files.contains_key(file) => "which the folder lacks".to_owned(),
                Some(found) if found == file => continue,
                Some(found) => format!("but it lies in {found}"),
                None => "which does not have it".to_owned(),
            };
            let (tensor, file) = (one_line(tensor), one_line(file));
            return refuse(format!("{tensor} is said to lie in {file}, {but}"));
        }
        if let Some(tensor) = self.places.keys().find(|name| !index.weight_map.contains_key(*name))
        {
            let file = self.place(tensor).unwrap_or_default();
            return refuse(format!("it does not list {}, which lies in {file}", one_line(tensor)));
        }
        Ok(())
    }

    /// A note, not an error: tools count the bytes of tensors differently, and nothing is read by the count.
    fn wrong_size(&self, index: &Index) -> Option<String> {
        let bytes: u64 =
            self.shards.iter().flat_map(|s| s.tensors.values()).map(Entry::bytes).sum();
        let stated = index.metadata.as_ref().and_then(|metadata| metadata.total_size);
        let wrong = stated.filter(|&total| total != bytes as f64)?;
        Some(format!("{INDEX}: total_size = {wrong}, but the files hold {bytes} bytes of tensors"))
    }

    fn find(&self, tensor: &str) -> Option<(&TensorWindows, &Entry)> {
        let shard = &self.shards[*self.places.get(tensor)?];
        Some((shard, shard.tensors.get(tensor)?))
    }

    /// The file that holds a tensor.
    fn place(&self, tensor: &str) -> Option<&str> {
        self.find(tensor).map(|(shard, _)| shard.name.as_str())
    }

    pub(super) fn check(&self, config: &ModelConfig) -> Result<()> {
        self.check_style(config)?;
        let expected: BTreeMap<_, _> = config.tensors().into_iter().collect();
        for (name, shape) in &expected {
            let Some((shard, Entry { kind, shape: found, .. })) = self.find(name) else {
                return Err(data(format!("the checkpoint lacks {name}: {}", self.searched())));
            };
            let refuse = |what: String| Err(data(format!("{}: {name} {what}", shard.name)));
            if found != shape {
                return refuse(format!(
                    "has the shape {found:?}, expected {shape:?} by config.json"
                ));
            }
            if !matches!(kind, Kind::BFloat16 | Kind::Half | Kind::Float | Kind::Double) {
                return refuse(format!("is {kind:?}, expected bf16, f16 or f32"));
            }
        }
        match self.places.keys().find(|name| !expected.contains_key(*name)) {
            Some(extra) => {
                let (extra, file) = (one_line(extra), self.place(extra).unwrap_or_default());
                Err(data(format!("{file}: the checkpoint has an unknown tensor {extra}")))
            }
            None => Ok(()),
        }
    }

    /// Refuses another family's names once, not tensor by tensor.
    fn check_style(&self, config: &ModelConfig) -> Result<()> {
        let (name, prefix) = (config.family.traits().name, config.names().prefix);
        let is_ours = |name: &String| name.starts_with(prefix);
        let Some(other) = self.places.keys().find(|name| !is_ours(name)) else { return Ok(()) };
        if self.places.keys().any(is_ours) {
            return Ok(());
        }
        let file = self.place(other).unwrap_or_default();
        Err(data(format!(
            "{file}: {} is not a name of {name}'s, which all begin with {prefix}: the weights are of another model than \
             config.json says; they have to be converted by their own tools, if their arithmetic is {name}'s at all",
            one_line(other)
        )))
    }

    fn searched(&self) -> String {
        match &self.shards[..] {
            [] => "the folder has no *.safetensors".to_owned(),
            [only] => format!("it is not in {}", only.name),
            [first, .., last] => {
                let files = self.shards.len();
                format!("it is in none of the {files} files from {} to {}", first.name, last.name)
            }
        }
    }

    /// Reads the weights into a device's memory, in a floating kind. Allocates all matrices first: windows
    /// allocated and freed between them would fragment the memory.
    pub(super) fn weights(
        &self,
        config: &ModelConfig,
        device: Device,
        kind: Kind,
    ) -> Result<Weights> {
        self.check(config)?;
        let unread = RefCell::new(vec![]);
        // The tensors of a stack differ in their rows alone.
        let stacked = |names: &[String]| {
            let mut shape = self.entry(&names[0])?.1.shape.clone();
            let rows = |name: &String| Ok(self.entry(name)?.1.shape[0]);
            let rows = names.iter().map(rows).collect::<Result<Vec<i64>>>()?;
            shape[0] = rows.iter().sum();
            let whole = Tensor::f_empty(shape, (kind, device)).map_err(libtorch)?;
            unread.borrow_mut().push((names.to_vec(), rows, whole.shallow_clone()));
            Ok(whole)
        };
        let weights = Weights::assemble(config, stacked)?;
        for (names, rows, whole) in unread.take() {
            let parts = whole.f_split_with_sizes(rows, 0).map_err(libtorch)?;
            for (name, part) in names.iter().zip(parts) {
                self.entry(name)?.0.fill(name, &part, true)?;
            }
        }
        Ok(weights)
    }

    /// The place of a tensor that the headers were checked for.
    fn entry(&self, name: &str) -> Result<(&TensorWindows, &Entry)> {
        self.find(name).ok_or_else(|| internal(format!("no tensor {name}")))
    }
}

#[cfg(test)]
mod tests;
