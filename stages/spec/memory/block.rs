//! What one block holds: for its backward pass, and while it is computed. `docs/memory.md` lists the numbers.
//!
//! The kernels that compute f32 on processors (`stages/compute/kernels`) keep the inputs of their operations alone. With
//! adapters they free pieces of many sizes between, which leave gaps: there, the numbers are those that were measured.

use super::{PassSizes, SINGLE, Workload, product};
use crate::run::Precision;

impl Workload {
    /// Whether passes hold what the program's own kernels keep, and no more.
    pub(super) fn has_kernels_alone(&self) -> bool {
        self.precision == Precision::F32 && !self.is_gpu && self.lora.is_none()
    }

    /// D, M, and A and C: widths of the residual stream, inside the SwiGLUs of a token, of all heads of queries and of keys.
    fn widths(&self) -> [u64; 4] {
        let sizes = &self.sizes;
        [sizes.d_model, sizes.inner(), sizes.queries(), sizes.keys()]
    }

    /// Numbers a token that norms of heads take: queries and keys before them.
    fn before_norms(&self) -> u64 {
        let [_, _, a, c] = self.widths();
        self.sizes.family.traits().tensors.qk_norms.map_or(0, |_| a + c)
    }

    /// Numbers a token of keys and values that libtorch repeats for each head of queries; the kernels repeat none.
    fn repeated(&self) -> u64 {
        let by_libtorch = self.precision == Precision::Bf16 || self.is_gpu;
        let has_groups = self.sizes.n_kv_heads < self.sizes.n_heads;
        if by_libtorch && has_groups { 2 * self.sizes.queries() } else { 0 }
    }

    /// Numbers a token that experts take beside those of their SwiGLUs: copies of what they read and write, and the gaps that
    /// pieces of many sizes leave. Above what was measured with 16 and 64 experts, of which a token chose 8.
    fn gathered(&self) -> u64 {
        let sizes = &self.sizes;
        let has_experts = sizes.family.traits().tensors.experts.is_some();
        if has_experts { product(&[6, sizes.experts_per_token, sizes.d_model]) } else { 0 }
    }

    /// Bytes a token that one block keeps for its backward pass.
    pub(super) fn kept(&self) -> u64 {
        let [d, m, a, c] = self.widths();
        let ranks = self.lora.as_ref().map_or(0, |lora| 7 * u64::from(lora.rank));
        let norms = self.before_norms();
        if self.has_kernels_alone() {
            return SINGLE * (4 * d + 2 * a + 2 * c + 3 * m + norms + self.gathered());
        }
        let frozen = 4 * d + 4 * a + 3 * c + 4 * m + norms + self.repeated() + self.gathered();
        match (self.precision, &self.lora) {
            (Precision::F32, None) => SINGLE * (frozen + 2 * d),
            (Precision::F32, Some(_)) => SINGLE * (frozen + ranks),
            // Inputs of norms are kept in f32.
            (Precision::Bf16, None) => 2 * (frozen + 2 * d) + SINGLE * (2 * d + norms),
            (Precision::Bf16, Some(_)) => 2 * (frozen + ranks) + SINGLE * (2 * d + norms),
        }
    }

    /// Bytes a token that the last block keeps at positions that are not queried: for keys and values.
    pub(super) fn kept_of_last(&self) -> u64 {
        let [d, _, _, c] = self.widths();
        let numbers = if self.has_kernels_alone() { 2 * d + 2 * c } else { 3 * d + 3 * c };
        let norms = if self.before_norms() > 0 { c } else { 0 };
        product(&[numbers + norms, self.precision.bytes()])
    }

    /// The most bytes that one block adds during its forward pass.
    pub(super) fn forward(&self, pass: &PassSizes) -> u64 {
        let [d, m, a, c] = self.widths();
        let norms = self.before_norms();
        let attention = 5 * d + 4 * a + 4 * c + norms + self.repeated();
        let of_token = match (self.precision, &self.lora) {
            (Precision::F32, None) => SINGLE * attention.max(5 * d + 3 * a + 3 * c + norms + 4 * m),
            (Precision::F32, Some(_)) => {
                SINGLE * attention.max(4 * d + 3 * a + 3 * c + norms + 8 * m)
            }
            (Precision::Bf16, _) => {
                let attention = 18 * d + 16 * a + 16 * c + 6 * norms + 2 * self.repeated();
                attention.max(10 * d + 6 * a + 6 * c + 2 * norms + 8 * m)
            }
        };
        product(&[pass.tokens(), of_token])
    }

    /// The most bytes a token that one block holds beside what it keeps, on its way forth or back.
    pub(super) fn beside_kept(&self) -> u64 {
        let [d, m, a, c] = self.widths();
        if self.has_kernels_alone() {
            // The gradients of gates and values, when their product is no longer needed.
            return SINGLE * (d + 2 * m);
        }
        let one = PassSizes { sequences: 1, length: 1, queried: 1 };
        self.forward(&one).max(SINGLE * (2 * d + a + c + 4 * m))
    }
}
