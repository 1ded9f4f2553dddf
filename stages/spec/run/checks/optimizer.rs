//! What `[optimizer]` and `[sft.optimizer]` may say.

use super::expect::{ensure, positive, share};
use crate::run::error::RunError;
use crate::run::optimizer::OptimizerConfig;

/// The keys of one optimizer section, so that errors name the key as it stands in the file.
pub(super) struct OptimizerKeys {
    learning_rate: &'static str,
    beta1: &'static str,
    beta2: &'static str,
    eps: &'static str,
    weight_decay: &'static str,
    max_grad_norm: &'static str,
    final_ratio: &'static str,
}

macro_rules! optimizer_keys {
    ($section:literal) => {
        OptimizerKeys {
            learning_rate: concat!($section, ".learning_rate"),
            beta1: concat!($section, ".beta1"),
            beta2: concat!($section, ".beta2"),
            eps: concat!($section, ".eps"),
            weight_decay: concat!($section, ".weight_decay"),
            max_grad_norm: concat!($section, ".max_grad_norm"),
            final_ratio: concat!($section, ".final_ratio"),
        }
    };
}

/// In `[optimizer]`.
pub(super) const OPTIMIZER_KEYS: OptimizerKeys = optimizer_keys!("optimizer");
/// In `[sft.optimizer]`.
pub(super) const SFT_OPTIMIZER_KEYS: OptimizerKeys = optimizer_keys!("sft.optimizer");

pub(super) fn optimizer(optimizer: &OptimizerConfig, keys: OptimizerKeys) -> Result<(), RunError> {
    positive(keys.learning_rate, optimizer.learning_rate)?;
    share(keys.beta1, optimizer.beta1)?;
    share(keys.beta2, optimizer.beta2)?;
    positive(keys.eps, optimizer.eps)?;
    ensure(
        optimizer.weight_decay.get() >= 0.0,
        keys.weight_decay,
        optimizer.weight_decay,
        "expected a number of at least 0",
    )?;
    positive(keys.max_grad_norm, optimizer.max_grad_norm)?;
    ensure(
        (0.0..=1.0).contains(&optimizer.final_ratio.get()),
        keys.final_ratio,
        optimizer.final_ratio,
        "expected a number from 0 to 1",
    )
}
