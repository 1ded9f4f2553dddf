//! Policies with an adapter, new or read, which is separate from the base or merged into it. Neither reads nor writes
//! the base's files.

use agrpo_spec::{Files, LoraConfig, Seed};
use tch::{Tensor, no_grad_guard};

use super::Policy;
use crate::error::{Result, data};
use crate::model::lora::{self, Adapter, Matrices};
use crate::{model::config::ModelConfig, tensors::NamedTensors};

impl Policy {
    /// Prepares a policy that was read for training. With `lora`, checks its adapter, or adds a new one drawn from
    /// `seed`, which changes nothing yet.
    pub fn ready_to_train(self, lora: Option<&LoraConfig>, seed: Seed) -> Result<Self> {
        let Some(lora) = lora else { return Ok(self) };
        match &self.adapter {
            Some(adapter) => lora::check(&self.config, lora, adapter).map(|()| self),
            None => self.with_new_adapter(lora, seed),
        }
    }

    /// The same policy on the same memory, with gradients of its own.
    pub(crate) fn handles(&self) -> Self {
        self.with_weights(self.weights.map(Tensor::detach))
    }

    /// The same policy whose trained parameters have memory of their own; the others are shared.
    pub(crate) fn apart(&self) -> Self {
        if self.adapter.is_none() {
            return self.with_weights(self.weights.map(|tensor| tensor.detach().copy()));
        }
        let mut apart = self.handles();
        apart.weights.copy_adapters();
        apart
    }

    /// Takes all weights from their masters, rounded to the policy's kind.
    pub(crate) fn round(&self, masters: &NamedTensors) {
        let _no_grad = no_grad_guard();
        for (name, mut weight) in self.parameters() {
            if let Some(master) = masters.get(&name) {
                weight.copy_(master);
            }
        }
    }

    /// The same policy with a new adapter, which changes nothing yet.
    pub fn with_new_adapter(self, lora: &LoraConfig, seed: Seed) -> Result<Self> {
        let found = lora::draw(&self.config, lora, seed)?;
        self.adapted(found)
    }

    /// The same policy with a LoRA adapter in PEFT's format: `adapter_config.json` and `adapter_model.safetensors`.
    /// From here on, only the adapter is trained.
    pub fn with_adapter(self, files: &Files) -> Result<Self> {
        let found = lora::read(&self.config, files)?;
        self.adapted(found)
    }

    fn adapted(mut self, (adapter, matrices): (Adapter, Matrices)) -> Result<Self> {
        if self.adapter.is_some() {
            return Err(data("the policy has an adapter already"));
        }
        for (_, leaf) in self.weights.leaves() {
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
    pub fn adapter_files(&self) -> Result<Option<Files>> {
        let files = |adapter: &Adapter| adapter.to_files(&self.parameters());
        self.adapter.as_ref().map(files).transpose()
    }

    /// The base alone, on the same memory.
    pub fn without_adapter(&self) -> Self {
        Self { adapter: None, ..self.with_weights(self.weights.base()) }
    }

    /// One policy without an adapter that computes the same but for rounding.
    #[must_use]
    pub fn merged(mut self) -> Self {
        let _no_grad = no_grad_guard();
        self.weights.merge();
        self.adapter = None;
        self
    }
}

/// The adapter that a run trains in this folder, and its matrices by PEFT's names; the base is not read.
/// None where all weights are trained.
pub(crate) fn adapter_of(
    files: &Files,
    lora: Option<&LoraConfig>,
    seed: Seed,
) -> Result<Option<(Adapter, NamedTensors)>> {
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
