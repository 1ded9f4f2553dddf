//! Arithmetic per second as a share of a device's peak, which its maker's sheet says. Measures nothing.

use serde::Serialize;

use super::{load::Load, measure::Figures};

/// Dense products of bfloat16, FLOP/s, by the start of the name that the driver gives: the makers' sheets.
const PEAKS: [(&str, f64); 6] = [
    ("NVIDIA H100 PCIe", 756e12),
    ("NVIDIA H100 NVL", 835e12),
    ("NVIDIA H100", 989.4e12),
    ("NVIDIA H200", 989.4e12),
    ("NVIDIA A100", 312e12),
    ("NVIDIA L40S", 362e12),
];

/// Arithmetic per second as a share of the peak; none where the peak is not known.
#[derive(Debug, Serialize)]
pub struct Utilisation {
    formula: &'static str,
    peak_flop_per_second: Option<f64>,
    forward: Option<f64>,
    rollout: Option<f64>,
    gradient: Option<f64>,
    rollout_tokens_per_second: &'static str,
}

impl Utilisation {
    /// The shares of a peak, in FLOP/s: the given one, else that of the GPU's name.
    pub fn new(load: &Load, figures: &Figures, gpu: Option<&str>, peak: Option<f64>) -> Self {
        let known = |gpu: &str| {
            let of_half = PEAKS.iter().find(|(name, _)| gpu.starts_with(name));
            of_half.filter(|_| load.half).map(|(_, peak)| *peak)
        };
        let peak = peak.or_else(|| gpu.and_then(known));
        let share = |flop: f64, seconds: f64| peak.map(|peak| flop / seconds / peak);
        Self {
            formula: "FLOP of a forward pass over L tokens with logits at Q of them: n_layers (2 (4 D^2 + 3 D M) + 4 L D) L \
                      + 2 Q D V; of a gradient sample two of them, as the base is frozen; what checkpointing computes again is \
                      not counted; share = FLOP / seconds / peak",
            peak_flop_per_second: peak,
            forward: share(figures.forward_flop, figures.forward_seconds),
            rollout: share(figures.rollout_flop, figures.rollout_seconds),
            gradient: share(figures.gradient_flop_per_sample, figures.gradient_seconds_per_sample),
            rollout_tokens_per_second: "extrapolated from rollout_steps measured steps of load.sampler.steps: whole blocks, \
                                        at the end of sequences of full length",
        }
    }
}
