//! The peak of a device, which its maker's sheet says, and how arithmetic is counted. Measures nothing.

/// How arithmetic is counted.
pub const FORMULA: &str = "FLOP of a forward pass over L tokens with logits at Q of them: n_layers (2 (4 D^2 + 3 D M) + \
                           4 L D) L + 2 Q D V; of a gradient sample two of them, as the base is frozen; adapters, and what \
                           checkpointing computes again, are not counted; share of peak = FLOP / seconds / peak";

/// Dense products of bfloat16, FLOP/s, by the start of the name that the driver gives: the makers' sheets.
const PEAKS: [(&str, f64); 6] = [
    ("NVIDIA H100 PCIe", 756e12),
    ("NVIDIA H100 NVL", 835e12),
    ("NVIDIA H100", 989.4e12),
    ("NVIDIA H200", 989.4e12),
    ("NVIDIA A100", 312e12),
    ("NVIDIA L40S", 362e12),
];

/// The peak of a GPU of this name in bfloat16, FLOP/s, if it is known.
pub fn peak(gpu: &str) -> Option<f64> {
    PEAKS.iter().find(|(name, _)| gpu.starts_with(name)).map(|(_, peak)| *peak)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_gpu_is_known_by_the_start_of_its_name() {
        assert_eq!(super::peak("NVIDIA H100 80GB HBM3"), Some(989.4e12));
        assert_eq!(super::peak("NVIDIA H100 PCIe"), Some(756e12));
        assert_eq!(super::peak("NVIDIA T4"), None);
    }
}
