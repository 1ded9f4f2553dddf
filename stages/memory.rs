//! A device that ran out of memory: how much was asked of it, and which keys ask for less. And one that
//! is lost, which every later call in the same process would meet again.
//!
//! libtorch tells it as text, from wherever it was; nothing is freed and nothing tried again here.

use agrpo_spec::{StageError, StageKind};

use crate::device::Device;

/// What libtorch's errors about a full device begin with.
const FULL: &str = "CUDA out of memory";

/// What CUDA's errors begin with that poison the process's context.
const LOST: &str = "CUDA error:";

/// Whether a device, or the machine, had no memory left.
pub(crate) fn is_refused(error: &StageError) -> bool {
    let of_cpu = "can't allocate memory";
    matches!(error, StageError::Internal(text) if text.contains(FULL) || text.contains(of_cpu))
}

/// An error as it is, unless it says that the device is full or lost.
pub(crate) fn explain(error: StageError, kind: StageKind, device: Device) -> StageError {
    match error {
        StageError::Internal(text) if text.contains(FULL) => {
            StageError::Internal(told(&text, kind, device))
        }
        StageError::Internal(text) if text.contains(LOST) && device.is_cuda() => {
            StageError::Device(format!("{device} is lost to this process: {text}"))
        }
        error => error,
    }
}

fn told(text: &str, kind: StageKind, device: Device) -> String {
    let asked = between(text, "Tried to allocate ", ". ").unwrap_or("an unknown amount");
    let whole = between(text, "total capacity of ", " of which ").unwrap_or("unknown");
    let free = between(text, " of which ", " is free").unwrap_or("unknown");
    let lower = match kind {
        StageKind::Sft => "sft.micro_batch",
        StageKind::Rollout => "rollout.micro_batch",
        StageKind::Gradient => "estimator.micro_batch",
        StageKind::Evaluation => "evaluation.micro_batch",
        StageKind::Reward | StageKind::Update => "the model's size",
    };
    format!(
        "the {kind} stage does not fit the memory of {device}: {asked} more were asked for, {free} of \
         {whole} were free; lower {lower}, or rollout.completion_tokens"
    )
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(after).map(|(found, _)| found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As libtorch 2.11 words it (c10/cuda/CUDACachingAllocator.cpp).
    const TEXT: &str = "the gradient stage broke off: called `Result::unwrap()` on an `Err` value: \
        Torch(\"CUDA out of memory. Tried to allocate 7.72 GiB. GPU 0 has a total capacity of 79.11 GiB \
        of which 3.50 GiB is free. Process 12 has 75.60 GiB memory in use.";

    #[test]
    fn a_full_device_says_how_much_and_what_to_lower() {
        let full = StageError::Internal(TEXT.to_owned());
        assert_eq!(
            explain(full, StageKind::Gradient, Device::Cuda(0)).to_string(),
            "the gradient stage does not fit the memory of cuda:0: 7.72 GiB more were asked for, 3.50 GiB \
             of 79.11 GiB were free; lower estimator.micro_batch, or rollout.completion_tokens"
        );
        let other = StageError::Internal("libtorch failed: shapes".to_owned());
        let kept = explain(other, StageKind::Gradient, Device::Cuda(0));
        assert_eq!(kept.to_string(), "libtorch failed: shapes");
    }

    #[test]
    fn a_lost_device_is_told_from_a_full_one() {
        let text = "libtorch failed: CUDA error: an illegal memory access was encountered";
        let lost =
            explain(StageError::Internal(text.to_owned()), StageKind::Rollout, Device::Cuda(1));
        assert!(matches!(lost, StageError::Device(_)), "{lost:?}");
        assert!(lost.to_string().starts_with("cuda:1 is lost to this process"), "{lost}");
    }
}
