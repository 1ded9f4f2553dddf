//! A policy's folder in Hugging Face layout, read and written.
//!
//! A folder with an adapter is the base's folder with PEFT's two files added. Refuses to write the base of an
//! adapted policy: its files stay as they are.

use std::collections::BTreeMap;

use agrpo_spec::Files;

use super::Policy;
use crate::error::{Result, internal};
use crate::{
    model::checkpoint::Checkpoint, model::config::ModelConfig, model::lora,
    model::placement::Placement, tensors,
};

impl Policy {
    /// From a folder in Hugging Face layout: `config.json`, one or several `*.safetensors`, and an adapter
    /// in PEFT's format if there is one. In f32 on the CPU.
    pub fn from_folder(files: &Files) -> Result<Self> {
        Self::from_folder_at(files, Placement::CPU)
    }

    /// The same on another device or in another floating kind. Host memory beside the policy stays bounded, whatever
    /// the checkpoint's size.
    pub fn from_folder_at(files: &Files, at: Placement) -> Result<Self> {
        let config = ModelConfig::of_folder(files)?;
        let weights = Checkpoint::open(files)?.weights(&config, at.device, at.kind)?;
        let policy = Self::of(config, weights);
        if lora::is_in(files) { policy.with_adapter(files) } else { Ok(policy) }
    }

    /// Reads another policy of the same run from the folder `files`, beside this one, which is that of the folder
    /// `own`. A base that both share is in memory once.
    pub(crate) fn beside(&self, own: &Files, files: &Files) -> Result<Self> {
        if self.adapter.is_none() || !lora::share_a_base(own, files) {
            return Self::from_folder_at(files, self.placement());
        }
        let base = self.without_adapter();
        if lora::is_in(files) { base.with_adapter(files) } else { Ok(base) }
    }

    /// The model's files for a folder in Hugging Face layout. Invalid error if a weight is not finite.
    pub fn to_files(&self) -> Result<Files> {
        if self.adapter.is_some() {
            return Err(internal("the base of an adapted policy is not written again"));
        }
        let weights = tensors::write_weights(&self.parameters())?;
        Ok(BTreeMap::from([
            ("config.json".to_owned(), self.config.to_json().into()),
            ("model.safetensors".to_owned(), weights.into()),
        ]))
    }
}
