//! AdamW (Loshchilov and Hutter, arXiv 1711.05101), a global gradient-norm clip and a learning-rate
//! schedule, with all state in named tensors.
//!
//! Computed on the processor in every numerics class (`optimizer/fused.rs`), with the same bits on all of them. Running
//! products of the betas are kept rather than powers. Does not use libtorch's optimizers: their state cannot be saved
//! through `tch`.

use std::collections::BTreeMap;

use agrpo_spec::{Content, OptimizerConfig, Schedule};
use bytes::Bytes;
use tch::{Device, Kind, Tensor, no_grad_guard};

pub(crate) use self::fused::fill;
use self::fused::{Factors, Row};
use crate::error::{Result, data, invalid};
use crate::tensors::{self, Entry, NamedTensors, TensorWindows, decoded, singles, singles_mut};
use crate::threads::Threads;

mod fused;

/// Moments of every parameter, and the number of their steps.
#[derive(Debug)]
pub(crate) struct AdamW {
    step: i64,
    /// beta1^step and beta2^step, as running products.
    decay: [f64; 2],
    /// First and second moment by parameter name, f32 in host memory.
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
        let zero = |p: &Tensor| Tensor::zeros(p.size(), (Kind::Float, Device::Cpu));
        let zeros = |p: &Tensor| [zero(p), zero(p)];
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

    pub(crate) fn read(
        content: &Content,
        parameters: &NamedTensors,
        threads: &Threads,
    ) -> Result<Self> {
        let mut file = TensorWindows::open(FILE, content)?;
        let step = file.take("step", &[1], Kind::Int64)?.int64_value(&[0]);
        let decay = file.take("decay", &[2], Kind::Double)?;
        let decay = [decay.double_value(&[0]), decay.double_value(&[1])];
        let [first, second] = ["m", "v"].map(|moment| {
            let entry = |(name, of): (&String, &Tensor)| {
                file.claim(&format!("{moment}.{name}"), &of.size(), Kind::Float)
            };
            parameters.iter().map(entry).collect::<Result<Vec<_>>>()
        });
        let entries = [first?, second?];
        file.all_taken()?;
        let read = |entries: &[Entry]| -> Result<_> {
            let mut tensors = empty(parameters);
            let copy = |place: usize, first, window: &mut [f32]| {
                let bytes = file.part(&entries[place], first, window.len())?;
                window.iter_mut().zip(decoded(&bytes)).for_each(|(to, number)| *to = number);
                Ok(())
            };
            fill(&mut tensors, copy, threads)?;
            Ok(tensors)
        };
        let [first, second] = [read(&entries[0])?, read(&entries[1])?];
        let moments = first.into_iter().zip(second.into_values());
        let moments = moments.map(|((name, first), second)| (name, [first, second])).collect();
        Ok(Self { step, decay, moments })
    }

    /// One step: clips the global norm of `gradients`, moves `parameters` in place. The moments are f32 on the processor.
    ///
    /// `n` is this step's number from 1 in a schedule of `total` steps.
    pub(crate) fn step(
        &mut self,
        parameters: &mut NamedTensors,
        gradients: &NamedTensors,
        config: &OptimizerConfig,
        (n, total): (u32, u32),
        threads: &Threads,
    ) -> Result<StepTaken> {
        let _no_grad = no_grad_guard();
        let gradients = on_host(gradients);
        let slices = gradients.values().map(singles).collect::<Result<Vec<_>>>()?;
        let grad_norm = fused::sum_of_squares(&slices, threads)?.sqrt();
        if !grad_norm.is_finite() {
            return Err(invalid(format!(
                "the gradient's norm at step {n} is {grad_norm}: training has diverged; lower the learning rate"
            )));
        }
        let learning_rate = learning_rate(config, n, total);
        let mut moved = on_host(parameters);
        let mut rows = vec![];
        let mut moments: BTreeMap<_, _> = self.moments.iter_mut().collect();
        for (name, parameter) in &mut moved {
            let gradient =
                gradients.get(name).ok_or_else(|| data(format!("no gradient of {name}")))?;
            let moments =
                moments.remove(name).ok_or_else(|| data(format!("no moments of {name}")))?;
            let is_exempt =
                ["norm.weight", "ln_f.weight", ".bias"].iter().any(|end| name.ends_with(end));
            let decay = if is_exempt { 0.0 } else { learning_rate * config.weight_decay.get() };
            let [first, second] = moments;
            rows.push(Row {
                parameter: singles_mut(parameter)?,
                moments: [singles_mut(first)?, singles_mut(second)?],
                gradient: singles(gradient)?,
                decay: single(decay),
            });
        }
        let (beta1, beta2) = (config.beta1.get(), config.beta2.get());
        self.step += 1;
        self.decay = [self.decay[0] * beta1, self.decay[1] * beta2];
        let factors = Factors {
            shrink: single((config.max_grad_norm.get() / (grad_norm + 1e-6)).min(1.0)),
            beta: [single(beta1), single(beta2)],
            rest: [single(1.0 - beta1), single(1.0 - beta2)],
            correction: self.decay.map(|decay| single(1.0 - decay)),
            eps: single(config.eps.get()),
            rate: single(learning_rate),
        };
        fused::step(rows, &factors, threads)?;
        for (parameter, moved) in parameters.values_mut().zip(moved.values()) {
            if parameter.data_ptr() != moved.data_ptr() {
                parameter.copy_(moved);
            }
        }
        Ok(StepTaken { grad_norm, learning_rate })
    }
}

/// A factor of numbers of f32.
#[expect(clippy::cast_possible_truncation, reason = "they are computed in f32")]
pub(crate) fn single(number: f64) -> f32 {
    number as f32
}

/// As many numbers of f32 in host memory, which have to be written before they are read.
pub(crate) fn empty(parameters: &NamedTensors) -> NamedTensors {
    let empty = |of: &Tensor| Tensor::empty(of.size(), (Kind::Float, Device::Cpu));
    parameters.iter().map(|(name, of)| (name.clone(), empty(of))).collect()
}

/// The same tensors in one piece each in host memory; copies only those that are not.
pub(crate) fn on_host(tensors: &NamedTensors) -> NamedTensors {
    let here = |tensor: &Tensor| tensor.to_device(Device::Cpu).contiguous();
    tensors.iter().map(|(name, tensor)| (name.clone(), here(tensor))).collect()
}

/// The rate of step n, from 1: linear warm-up over W = `warmup` steps, then constant, or half a cosine down to `final_ratio`.
///
/// ```text
/// rate(n) = peak n / W                                    for n <= W; with starts_at_zero, peak (n - 1) / W
/// rate(n) = peak (f + (1 - f) (1 + cos(pi (n - 1 - W) / (total - W))) / 2),   f = final_ratio, for n > W
/// ```
/// With `starts_at_zero` and f = 0 this is `get_cosine_schedule_with_warmup` of transformers (4.57), whose first step is
/// number 0: published runs take their first step at a rate of 0.
fn learning_rate(config: &OptimizerConfig, n: u32, total: u32) -> f64 {
    let peak = config.learning_rate.get();
    if n <= config.warmup {
        let n = if config.starts_at_zero { n - 1 } else { n };
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
