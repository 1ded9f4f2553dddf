//! What one block holds: for its backward pass, and while it is computed. `docs/memory.md` lists the numbers.

use super::{PassSizes, SINGLE, Sizes, Workload, product};
use crate::run::Precision;

impl Workload {
    /// Bytes a token that one block keeps for its backward pass.
    pub(super) fn kept(&self) -> u64 {
        let Sizes { d_model: d, mlp_hidden_size: m, .. } = self.sizes;
        match (self.precision, &self.lora) {
            (Precision::F32, None) => SINGLE * (13 * d + 4 * m),
            (Precision::F32, Some(lora)) => SINGLE * (11 * d + 4 * m + 7 * u64::from(lora.rank)),
            // Inputs of norms are kept in f32.
            (Precision::Bf16, None) => 2 * (13 * d + 4 * m) + SINGLE * 2 * d,
            (Precision::Bf16, Some(lora)) => {
                2 * (11 * d + 4 * m + 7 * u64::from(lora.rank)) + SINGLE * 2 * d
            }
        }
    }

    /// The most bytes that one block adds during its forward pass.
    pub(super) fn forward(&self, pass: &PassSizes) -> u64 {
        let Sizes { d_model: d, mlp_hidden_size: m, .. } = self.sizes;
        let of_token = match (self.precision, &self.lora) {
            (Precision::F32, None) => SINGLE * (13 * d).max(11 * d + 4 * m),
            (Precision::F32, Some(_)) => SINGLE * (13 * d).max(10 * d + 8 * m),
            (Precision::Bf16, _) => (50 * d).max(22 * d + 8 * m),
        };
        product(&[pass.tokens(), of_token])
    }

    /// The most bytes of activation gradients that one block holds during its backward pass.
    pub(super) fn way_back(&self, pass: &PassSizes) -> u64 {
        let Sizes { d_model: d, mlp_hidden_size: m, .. } = self.sizes;
        product(&[pass.tokens(), SINGLE * (4 * d + 4 * m)])
    }
}
