//! What one block holds: for its backward pass, and while it is computed. `docs/memory.md` lists the numbers.
//!
//! The kernels that compute f32 on processors (`stages/compute/kernels`) keep the inputs of their operations alone. With
//! adapters they free pieces of many sizes between, which leave gaps: there, the numbers are those that were measured.

use super::{PassSizes, SINGLE, Sizes, Workload, product};
use crate::run::Precision;

impl Workload {
    /// Whether passes hold what the program's own kernels keep, and no more.
    pub(super) fn has_kernels_alone(&self) -> bool {
        self.precision == Precision::F32 && !self.is_gpu && self.lora.is_none()
    }

    /// Bytes a token that one block keeps for its backward pass.
    pub(super) fn kept(&self) -> u64 {
        let Sizes { d_model: d, mlp_hidden_size: m, .. } = self.sizes;
        let ranks = self.lora.as_ref().map_or(0, |lora| 7 * u64::from(lora.rank));
        if self.has_kernels_alone() {
            return SINGLE * (8 * d + 3 * m);
        }
        match (self.precision, &self.lora) {
            (Precision::F32, None) => SINGLE * (13 * d + 4 * m),
            (Precision::F32, Some(_)) => SINGLE * (11 * d + 4 * m + ranks),
            // Inputs of norms are kept in f32.
            (Precision::Bf16, None) => 2 * (13 * d + 4 * m) + SINGLE * 2 * d,
            (Precision::Bf16, Some(_)) => 2 * (11 * d + 4 * m + ranks) + SINGLE * 2 * d,
        }
    }

    /// Bytes a token that the last block keeps at positions that are not queried: for keys and values.
    pub(super) fn kept_of_last(&self) -> u64 {
        let numbers = if self.has_kernels_alone() { 4 } else { 6 };
        product(&[numbers, self.sizes.d_model, self.precision.bytes()])
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

    /// The most bytes a token that one block holds beside what it keeps, on its way forth or back.
    pub(super) fn beside_kept(&self) -> u64 {
        let Sizes { d_model: d, mlp_hidden_size: m, .. } = self.sizes;
        if self.has_kernels_alone() {
            // The gradients of gates and values, when their product is no longer needed.
            return SINGLE * (d + 2 * m);
        }
        let one = PassSizes { sequences: 1, length: 1, queried: 1 };
        self.forward(&one).max(SINGLE * (4 * d + 4 * m))
    }
}
