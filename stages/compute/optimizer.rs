//! AdamW (Loshchilov and Hutter, arXiv 1711.05101), a global gradient-norm clip and a learning-rate
//! schedule, with all state in named tensors.
//!
//! Root and norm are taken in f64, where every CPU rounds alike once the result is an f32; running products of
//! the betas are kept rather than powers. Does not use libtorch's optimizers: their state cannot be saved
//! through `tch`.

use std::collections::BTreeMap;

use agrpo_spec::{Content, OptimizerConfig, Schedule, StageError};
use bytes::Bytes;
use tch::{Kind, Tensor, no_grad_guard};

use crate::error::{Result, data, invalid};
use crate::tensors::{self, NamedTensors, TensorWindows};

/// Moments of every parameter, and the number of their steps.
#[derive(Debug)]
pub(crate) struct AdamW {
    step: i64,
    /// beta1^step and beta2^step, as running products.
    decay: [f64; 2],
    /// First and second moment by parameter name.
    moments: BTreeMap<String, [Tensor; 2]>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct StepTaken {
    /// Global gradient norm before the clip.
    pub(crate) grad_norm: f64,
    pub(crate) learning_rate: f64,
}

const FILE: &str = "optimizer state";

impl AdamW {
    pub(crate) fn new(parameters: &NamedTensors) -> Self {
        let zeros = |p: &Tensor| [p.zeros_like(), p.zeros_like()];
        let moments = parameters.iter().map(|(name, p)| (name.clone(), zeros(p))).collect();
        Self { step: 0, decay: [1.0, 1.0], moments }
    }

    pub(crate) fn to_bytes(&self) -> Result<Bytes> {
        let mut named = NamedTensors::new();
        named.insert("step".into(), Tensor::from_slice(&[self.step]));
        named.insert("decay".into(), Tensor::from_slice(&self.decay));
        for (name, [first, second]) in &self.moments {
            named.insert(format!("m.{name}"), first.shallow_clone());
            named.insert(format!("v.{name}"), second.shallow_clone());
        }
        tensors::write(&named)
    }

    pub(crate) fn read(content: &Content, parameters: &NamedTensors) -> Result<Self> {
        let mut file = TensorWindows::open(FILE, content)?;
        let step = file.take("step", &[1], Kind::Int64)?.int64_value(&[0]);
        let decay = file.take("decay", &[2], Kind::Double)?;
        let mut moments = BTreeMap::new();
        for (name, parameter) in parameters {
            let mut moment = |prefix: &str| {
                let name = format!("{prefix}.{name}");
                let moment = file.take(&name, &parameter.size(), Kind::Float)?;
                Ok::<_, StageError>(moment.to_device(parameter.device()))
            };
            moments.insert(name.clone(), [moment("m")?, moment("v")?]);
        }
        file.all_taken()?;
        let decay = [decay.double_value(&[0]), decay.double_value(&[1])];
        Ok(Self { step, decay, moments })
    }

    /// One step: clips the global norm of `gradients`, moves `parameters` in place.
    ///
    /// `n` is this step's number from 1 in a schedule of `total` steps.
    pub(crate) fn step(
        &mut self,
        parameters: &mut NamedTensors,
        gradients: &NamedTensors,
        config: &OptimizerConfig,
        n: u32,
        total: u32,
    ) -> Result<StepTaken> {
        let _no_grad = no_grad_guard();
        let grad_norm = global_norm(gradients);
        if !grad_norm.is_finite() {
            return Err(invalid(format!(
                "the gradient's norm at step {n} is {grad_norm}: training has diverged; lower the learning rate"
            )));
        }
        let shrink = (config.max_grad_norm.get() / (grad_norm + 1e-6)).min(1.0);
        let learning_rate = learning_rate(config, n, total);
        let (beta1, beta2) = (config.beta1.get(), config.beta2.get());
        self.step += 1;
        self.decay = [self.decay[0] * beta1, self.decay[1] * beta2];
        for (name, parameter) in parameters.iter_mut() {
            let gradient =
                gradients.get(name).ok_or_else(|| data(format!("no gradient of {name}")))?;
            let gradient = gradient * shrink;
            let [first, second] =
                self.moments.get_mut(name).ok_or_else(|| data(format!("no moments of {name}")))?;
            *first = &*first * beta1 + &gradient * (1.0 - beta1);
            *second = &*second * beta2 + gradient.square() * (1.0 - beta2);
            let unbiased = &*second / (1.0 - self.decay[1]);
            let root = unbiased.to_kind(Kind::Double).sqrt().to_kind(Kind::Float);
            let direction = &*first / (1.0 - self.decay[0]) / (root + config.eps.get());
            let is_norm = name.ends_with("norm.weight") || name.ends_with("ln_f.weight");
            let decay = if is_norm { 0.0 } else { learning_rate * config.weight_decay.get() };
            *parameter = &*parameter * (1.0 - decay) - direction * learning_rate;
        }
        Ok(StepTaken { grad_norm, learning_rate })
    }
}

/// sqrt of the sum of all squares, summed in f64 in the order of names.
fn global_norm(gradients: &NamedTensors) -> f64 {
    let squares = gradients.values().map(|g| {
        let g = g.to_kind(Kind::Double);
        (&g * &g).sum(Kind::Double).double_value(&[])
    });
    squares.sum::<f64>().sqrt()
}

/// Linear warm-up over `warmup` steps, then constant, or half a cosine down to `final_ratio`.
fn learning_rate(config: &OptimizerConfig, n: u32, total: u32) -> f64 {
    let peak = config.learning_rate.get();
    if n <= config.warmup {
        return peak * f64::from(n) / f64::from(config.warmup);
    }
    match config.schedule {
        Schedule::Constant => peak,
        Schedule::Cosine => {
            let span = f64::from(total.saturating_sub(config.warmup).max(1));
            let progress = (f64::from(n - config.warmup - 1) / span).min(1.0);
            let cosine = 0.5 * (1.0 + libm::cos(std::f64::consts::PI * progress));
            let floor = config.final_ratio.get();
            peak * (floor + (1.0 - floor) * cosine)
        }
    }
}

#[cfg(test)]
mod tests;
