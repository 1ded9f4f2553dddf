//! Explains a device or a host that ran out of memory (how much was requested, which keys request less), and a device
//! that is lost to the process.
//!
//! libtorch reports both as text only, as an exception or as a panic of `tch`, and [`cause`] is the one place that
//! reads it. Frees and retries nothing.

use agrpo_spec::{StageError, StageKind};

use crate::device::Device;

/// The failures of libtorch that are handled specially.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    DeviceFull,
    HostFull,
    /// A CUDA error: every later call in the same process fails with it too.
    DeviceLost,
}

/// The cause of an internal error, by the words of libtorch 2.11 and CUDA; `None` for any other.
fn cause(error: &StageError) -> Option<Cause> {
    let StageError::Internal(text) = error else { return None };
    let words = [
        ("CUDA out of memory", Cause::DeviceFull),
        ("CUDA error:", Cause::DeviceLost),
        ("can't allocate memory", Cause::HostFull),
    ];
    words.into_iter().find(|(words, _)| text.contains(words)).map(|(_, cause)| cause)
}

/// Whether a device, or the machine, had no memory left.
pub(crate) fn is_out_of_memory(error: &StageError) -> bool {
    matches!(cause(error), Some(Cause::DeviceFull | Cause::HostFull))
}

/// The message of a panic without the C++ stack of an exception of libtorch, which `tch` writes into its first line: ends
/// of lines are escaped.
pub fn without_stack(text: &str) -> &str {
    text.split_once("\\n").map_or(text, |(message, _)| message.trim_end_matches('\\'))
}

/// An error as it is, unless memory is full or the device lost.
pub(crate) fn explain(error: StageError, kind: StageKind, device: Device) -> StageError {
    match (cause(&error), error) {
        (Some(Cause::DeviceFull), StageError::Internal(text)) => {
            StageError::Internal(text.reworded(|text| full(text, kind, device)))
        }
        (Some(Cause::HostFull), StageError::Internal(text)) => {
            StageError::Internal(text.reworded(|text| host_full(text, kind)))
        }
        (Some(Cause::DeviceLost), StageError::Internal(text)) if device.is_cuda() => {
            let lost = |text: &str| format!("{device} is lost to this process: {text}");
            StageError::Device(text.reworded(lost))
        }
        (_, error) => error,
    }
}

fn full(text: &str, kind: StageKind, device: Device) -> String {
    let asked = between(text, "Tried to allocate ", ". ").unwrap_or("an unknown amount");
    let whole = between(text, "total capacity of ", " of which ").unwrap_or("unknown");
    let free = between(text, " of which ", " is free").unwrap_or("unknown");
    let lower = lower(kind);
    format!(
        "the {kind} stage does not fit the memory of {device}: {asked} more were asked for, {free} of \
         {whole} were free; lower {lower}, or rollout.completion_tokens"
    )
}

fn host_full(text: &str, kind: StageKind) -> String {
    let asked = between(text, "you tried to allocate ", " bytes").unwrap_or("an unknown number of");
    let lower = lower(kind);
    format!(
        "the {kind} stage does not fit this machine's memory: {asked} bytes more were refused; lower {lower}, \
         --threads or --workers"
    )
}

/// What makes a stage smaller.
fn lower(kind: StageKind) -> &'static str {
    match kind {
        StageKind::Sft => "sft.micro_batch",
        StageKind::Rollout => "rollout.micro_batch",
        StageKind::Gradient | StageKind::Updates => "estimator.micro_batch",
        StageKind::Evaluation => "evaluation.micro_batch",
        StageKind::Reward | StageKind::Update => "the model's size",
    }
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(after).map(|(found, _)| found)
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use agrpo_spec::Message;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("an exception")]
    struct Kept;

    /// As libtorch 2.11 words it (c10/cuda/CUDACachingAllocator.cpp).
    const TEXT: &str = "the gradient stage broke off: called `Result::unwrap()` on an `Err` value: \
        Torch(\"CUDA out of memory. Tried to allocate 7.72 GiB. GPU 0 has a total capacity of 79.11 GiB \
        of which 3.50 GiB is free. Process 12 has 75.60 GiB memory in use.";

    #[test]
    fn causes_are_read_from_libtorch_s_words() {
        let of = |text: &str| cause(&StageError::Internal(text.into()));
        let host = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: \
                    you tried to allocate 8 bytes.";
        assert_eq!(of(TEXT), Some(Cause::DeviceFull));
        assert_eq!(of(host), Some(Cause::HostFull));
        assert_eq!(of("CUDA error: device-side assert triggered"), Some(Cause::DeviceLost));
        assert_eq!(of("libtorch failed: shapes"), None);
        // Only libtorch's own errors count: data may spell the same words.
        assert_eq!(cause(&StageError::Data(TEXT.into())), None);
        for (text, expected) in [(TEXT, true), (host, true), ("CUDA error: x", false)] {
            assert_eq!(is_out_of_memory(&StageError::Internal(text.into())), expected, "{text}");
        }
    }

    #[test]
    fn a_full_device_says_how_much_and_what_to_lower() {
        let full = StageError::Internal(Message::caused_by(TEXT, Kept));
        let explained = explain(full, StageKind::Gradient, Device::Cuda(0));
        assert!(explained.source().is_some_and(<dyn Error>::is::<Kept>));
        assert_eq!(
            explained.to_string(),
            "the gradient stage does not fit the memory of cuda:0: 7.72 GiB more were asked for, 3.50 GiB \
             of 79.11 GiB were free; lower estimator.micro_batch, or rollout.completion_tokens"
        );
        let other = StageError::Internal("libtorch failed: shapes".into());
        let kept = explain(other, StageKind::Gradient, Device::Cuda(0));
        assert_eq!(kept.to_string(), "libtorch failed: shapes");
    }

    /// As `tch` panics in a thread of a stage: an exception with its C++ stack, escaped twice.
    #[test]
    fn a_full_host_says_how_much_and_what_to_lower() {
        let text = "called `Result::unwrap()` on an `Err` value: Torch(\"called `Result::unwrap()` on an `Err` \
                    value: Torch(\\\"[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't \
                    allocate memory: you tried to allocate 4096 bytes. Error code 12\\\\nframe #0: c10\\\\n\\\")\")";
        let first = without_stack(text);
        assert!(first.ends_with("Error code 12"), "{first}");
        let text = format!("the sft stage broke off: {first}");
        let full = StageError::Internal(text.as_str().into());
        assert!(is_out_of_memory(&full));
        assert_eq!(
            explain(full, StageKind::Sft, Device::Cpu).to_string(),
            "the sft stage does not fit this machine's memory: 4096 bytes more were refused; lower \
             sft.micro_batch, --threads or --workers"
        );
        assert_eq!(without_stack("one\ntwo"), "one\ntwo");
    }

    #[test]
    fn a_lost_device_is_not_a_full_one() {
        let text = "libtorch failed: CUDA error: an illegal memory access was encountered";
        let lost = explain(StageError::Internal(text.into()), StageKind::Rollout, Device::Cuda(1));
        assert!(matches!(lost, StageError::Device(_)), "{lost:?}");
        assert!(lost.to_string().starts_with("cuda:1 is lost to this process"), "{lost}");
    }
}
