//! What `[optimizer]` and `[sft.optimizer]` may say.

use crate::run::error::{RunError, below_one, not_negative, positive, share};
use crate::run::learning::OptimizerConfig;

/// Checks the section of that name.
pub(super) fn optimizer(section: &str, optimizer: &OptimizerConfig) -> Result<(), RunError> {
    let key = |name: &str| format!("{section}.{name}");
    positive(key("learning_rate"), optimizer.learning_rate)?;
    below_one(key("beta1"), optimizer.beta1)?;
    below_one(key("beta2"), optimizer.beta2)?;
    positive(key("eps"), optimizer.eps)?;
    not_negative(key("weight_decay"), optimizer.weight_decay)?;
    positive(key("max_grad_norm"), optimizer.max_grad_norm)?;
    share(key("final_ratio"), optimizer.final_ratio)
}
