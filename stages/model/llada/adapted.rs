//! Policies with an adapter: how a run's is begun or found, kept apart from its base, and merged.
//!
//! A folder with an adapter is the base's folder with PEFT's two files added. The base's files are never
//! written again.

use agrpo_spec::{Files, LoraConfig, Seed, StageError};
use tch::no_grad_guard;

use super::{Placement, Policy};
use crate::error::data;
use crate::model::config::ModelConfig;
use crate::model::lora::{self, Adapter, Matrices};

impl Policy {
    /// The policy of a folder as a run trains it: with `lora`, the folder's adapter or else a new one
    /// drawn from `seed`, whose policy is its base.
    pub fn for_training(
        files: &Files,
        lora: Option<&LoraConfig>,
        seed: Seed,
        at: Placement,
    ) -> Result<Self, StageError> {
        Self::from_folder_at(files, at)?.ready_to_train(lora, seed)
    }

    /// A policy that was read, as a run trains it; the folder's adapter is checked against `lora`.
    pub(crate) fn ready_to_train(
        self,
        lora: Option<&LoraConfig>,
        seed: Seed,
    ) -> Result<Self, StageError> {
        let Some(lora) = lora else { return Ok(self) };
        match &self.adapter {
            Some(adapter) => lora::check(&self.config, lora, adapter).map(|()| self),
            None => self.with_new_adapter(lora, seed),
        }
    }

    /// The same policy on the same memory: gradients are asked for, gathered and forgotten by itself.
    pub(crate) fn handles(&self) -> Self {
        let weights = self.weights.handles();
        Self { config: self.config.clone(), weights, adapter: self.adapter.clone() }
    }

    /// The policy of a folder as it is sampled from; `merge` computes with W + s B A, rounded to the
    /// base's kind.
    pub fn for_sampling(files: &Files, merge: bool, at: Placement) -> Result<Self, StageError> {
        let policy = Self::from_folder_at(files, at)?;
        Ok(if merge { policy.merged() } else { policy })
    }

    /// The same policy with an adapter that changes nothing yet.
    pub fn with_new_adapter(self, lora: &LoraConfig, seed: Seed) -> Result<Self, StageError> {
        let found = lora::draw(&self.config, lora, seed)?;
        self.adapted(found)
    }

    /// The same policy with a LoRA adapter in PEFT's format: `adapter_config.json` and
    /// `adapter_model.safetensors`. From here on the adapter is what is trained.
    pub fn with_adapter(self, files: &Files) -> Result<Self, StageError> {
        let found = lora::read(&self.config, files)?;
        self.adapted(found)
    }

    fn adapted(mut self, (adapter, matrices): (Adapter, Matrices)) -> Result<Self, StageError> {
        if self.adapter.is_some() {
            return Err(data("the policy has an adapter already"));
        }
        for leaf in self.weights.leaves() {
            drop(leaf.set_requires_grad(false));
        }
        self.weights.adapt(matrices);
        self.adapter = Some(adapter);
        Ok(self)
    }

    /// The adapter, where there is one.
    pub fn adapter(&self) -> Option<&Adapter> {
        self.adapter.as_ref()
    }

    /// PEFT's two files, where there is an adapter.
    pub fn adapter_files(&self) -> Result<Option<Files>, StageError> {
        let files = |adapter: &Adapter| adapter.to_files(&self.parameters());
        self.adapter.as_ref().map(files).transpose()
    }

    /// The base alone, on the same memory.
    pub fn without_adapter(&self) -> Self {
        Self { config: self.config.clone(), weights: self.weights.base(), adapter: None }
    }

    /// One policy without an adapter that computes the same but for rounding.
    #[must_use]
    pub fn merged(mut self) -> Self {
        let _no_grad = no_grad_guard();
        self.weights.merge();
        self.adapter = None;
        self
    }

    /// Another policy of the same run, `files`, beside this one, read from `own`. Where both have one base,
    /// it is in memory once.
    pub(crate) fn beside(&self, own: &Files, files: &Files) -> Result<Self, StageError> {
        let base = |files| lora::base_files(files);
        if self.adapter.is_none() || !base(own).eq(base(files)) {
            return Self::from_folder_at(files, self.placement());
        }
        let base = self.without_adapter();
        if lora::is_in(files) { base.with_adapter(files) } else { Ok(base) }
    }
}

/// The adapter that a run trains in this folder, and its matrices by PEFT's names; the base is not read.
/// None where all weights are trained.
pub(crate) fn adapter_of(
    files: &Files,
    lora: Option<&LoraConfig>,
    seed: Seed,
) -> Result<Option<(Adapter, crate::tensor_file::NamedTensors)>, StageError> {
    let is_there = lora::is_in(files);
    if !is_there && lora.is_none() {
        return Ok(None);
    }
    let config = ModelConfig::of_folder(files)?;
    let (adapter, matrices) = match lora {
        Some(lora) if !is_there => lora::draw(&config, lora, seed)?,
        _ => lora::read(&config, files)?,
    };
    lora.map_or(Ok(()), |lora| lora::check(&config, lora, &adapter))?;
    Ok(Some((adapter, lora::to_named(matrices))))
}

#[cfg(test)]
mod tests;
