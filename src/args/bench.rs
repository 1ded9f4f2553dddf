//! Options of `agrpo bench-gpu`, which is for `make gpu` and is not listed.

use std::path::PathBuf;

use agrpo_spec::Numerics;
use clap::Args;

use super::options::DeviceArgs;

/// Measure a device: parity with the processor, replay, and the speed of a model of 8 billion weights
///
/// Parity compares logits of a small model in f32 with the processor's. Replay computes a tiny run and
/// then every stage of it again, and compares their bytes. Speed is that of LLaDA-8B's sizes in
/// bfloat16, with arbitrary weights made on the device. The store is not touched.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agrpo bench-gpu --device cuda:0 --output docs/bench/gpu.json
  agrpo bench-gpu --device cpu --tiny")]
pub(crate) struct BenchGpuArgs {
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// Numerics class to assume if the driver does not report the GPU's compute capability
    #[arg(long, value_name = "CLASS")]
    pub(crate) numerics: Option<Numerics>,
    /// Measure a tiny model in f32 instead
    #[arg(long)]
    pub(crate) tiny: bool,
    /// Folder of the model whose logits are compared
    #[arg(long, value_name = "DIR", default_value = "tests/golden/llada_tiny")]
    pub(crate) golden: PathBuf,
    /// Completions sampled side by side
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) sequences: Option<u32>,
    /// Transformer blocks of the model
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) layers: Option<u32>,
    /// States differentiated by the clock; at most as many as completions
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) gradient_samples: Option<u32>,
    /// States of one forward and backward pass
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) gradient_states: Option<u32>,
    /// Measure arithmetic per second against this peak instead of the known one of the device
    #[arg(long, value_name = "TFLOPS", value_parser = peak)]
    pub(crate) peak: Option<f64>,
    /// File to write; standard output without
    #[arg(long, value_name = "FILE.json")]
    pub(crate) output: Option<PathBuf>,
}

fn peak(text: &str) -> Result<f64, &'static str> {
    let value = text.parse().ok().filter(|value: &f64| value.is_finite() && *value > 0.0);
    value.ok_or("expected a number above 0")
}
