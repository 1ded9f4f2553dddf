//! The device that computes tensors: the processor, or one GPU.
//!
//! The caller of a stage names its device. The policy is read into its memory, and tensors used with the policy are
//! made there. The numerics class is part of the spec: a device refuses stages of another class. Does not choose a
//! device.

use std::{fmt, str::FromStr};

use agrpo_spec::{Numerics, StageError, StageKind};

use crate::error::invalid;

mod deterministic;
pub(crate) mod out_of_memory;

pub use deterministic::use_deterministic_algorithms;
pub use out_of_memory::without_stack;

/// A device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// The GPU of this number, counted by bus among those that the process may see.
    Cuda(usize),
}

/// How many GPUs libtorch can compute on. Call it after libtorch's CUDA libraries are loaded: an earlier call returns
/// 0, and so do all later ones.
pub fn gpus() -> usize {
    usize::try_from(tch::Cuda::device_count()).unwrap_or(0)
}

/// The libtorch that this program was built for.
pub fn libtorch_version() -> &'static str {
    "2.11.0"
}

/// One thread inside an operation, so that its sums have one order; parallelism is several stages at once, and several
/// parts of one ([`crate::Threads`]).
pub fn use_one_thread() {
    tch::set_num_threads(1);
}

/// The text names no device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no device: expected cpu, or cuda:N for the GPU number N, as in cuda:0")]
pub struct ParseDeviceError(String);

impl Device {
    /// Whether it is a GPU.
    pub fn is_cuda(self) -> bool {
        matches!(self, Self::Cuda(_))
    }

    pub(crate) fn of_tch(self) -> tch::Device {
        match self {
            Self::Cpu => tch::Device::Cpu,
            Self::Cuda(number) => tch::Device::Cuda(number),
        }
    }

    /// Refuses a stage that this device does not compute.
    pub(crate) fn check(self, kind: StageKind, class: Numerics) -> Result<(), StageError> {
        if !class.is_computed() {
            return Err(invalid(format!(
                "the {kind} stage is of numerics class {class}, in which this release computes nothing: use the \
                 release that made it"
            )));
        }
        if self.is_cuda() == class.is_cuda() {
            return Ok(());
        }
        let expected = if class.is_cuda() { "--device cuda:0" } else { "--device cpu" };
        Err(invalid(format!(
            "the {kind} stage is of numerics class {class}, which {self} does not compute: start agrpo with {expected}"
        )))
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.pad("cpu"),
            Self::Cuda(number) => f.pad(&format!("cuda:{number}")),
        }
    }
}

impl FromStr for Device {
    type Err = ParseDeviceError;

    fn from_str(text: &str) -> Result<Self, ParseDeviceError> {
        let number = text.strip_prefix("cuda:").and_then(|number| number.parse().ok());
        // One spelling each: no sign, no leading zero. libtorch numbers devices in an i8.
        let gpu = number.filter(|number| *number < 128).map(Self::Cuda);
        let device = [Self::Cpu].into_iter().chain(gpu).find(|device| device.to_string() == text);
        device.ok_or_else(|| ParseDeviceError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_one_spelling() {
        for name in ["cpu", "cuda:0", "cuda:7"] {
            assert_eq!(name.parse::<Device>().unwrap().to_string(), name);
        }
        for text in ["", "gpu", "cuda", "cuda:", "cuda:00", "cuda:+1", "cuda:x", "cuda:128"] {
            assert!(text.parse::<Device>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_device_computes_the_class_of_its_kind_alone() {
        let (cpu, gone) = (Numerics::CpuPortable, Numerics::CpuNative);
        let gpu = Numerics::Cuda { sm: 90 };
        let refused = |device: Device, class| device.check(StageKind::Rollout, class).is_err();
        assert!(!refused(Device::Cpu, cpu) && !refused(Device::Cuda(0), gpu));
        assert!(refused(Device::Cpu, gpu) && refused(Device::Cuda(0), cpu));
        assert!(refused(Device::Cpu, gone) && refused(Device::Cuda(0), gone));
    }
}
