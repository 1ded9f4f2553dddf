//! How fast a machine is, as far as an estimate needs to know. Reads no clock: what is measured comes from the caller.

use crate::run::{Numerics, RunConfig};
use crate::stage::StageKind;

/// The rates that estimates of time are made with. Of a thread on processors; of a GPU and the one thread that feeds it
/// otherwise.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Rates {
    /// Operations a second of the products and of attention.
    pub products: f64,
    /// Operations a second of the products of adapters.
    pub adapters: f64,
    /// Seconds for a number that a block makes between its products, in the forward pass.
    pub forward: f64,
    /// The same in the backward pass.
    pub backward: f64,
    /// Seconds for each logit of a position whose token is chosen.
    pub choice: Choice,
    /// Seconds to grade a completion by a rule of agrpo's own.
    pub grading: f64,
    /// Seconds to add a number of a pass's gradient to the sum.
    pub sum: f64,
    /// Seconds to read a number of a shard's gradient and to add it.
    pub join: f64,
    /// Seconds of AdamW for a trained number.
    pub step: f64,
    /// Seconds to read a number of policy and moments from its file, and to write it to the next.
    pub output: f64,
    /// Bytes a second that one thread hashes.
    pub hash: f64,
    /// Bytes a second out of the store.
    pub fetch: f64,
    /// Bytes a second into the store.
    pub store: f64,
    /// Bytes a second of weights from the host's memory to where they are computed with.
    pub load: f64,
    /// Seconds for the records of a stage.
    pub records: f64,
}

/// Seconds for each logit, by how the sampler chooses.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Choice {
    /// Among all tokens, by a draw or greedily.
    pub unfiltered: f64,
    /// With top-k.
    pub top_k: f64,
    /// With top-p alone.
    pub top_p: f64,
}

impl Choice {
    /// Of the sampler of a kind of stage.
    pub(super) fn of(&self, kind: StageKind, config: &RunConfig) -> f64 {
        let rollout = &config.rollout;
        match kind {
            StageKind::Rollout if rollout.top_k > 0 => self.top_k,
            StageKind::Rollout if rollout.top_p.get() < 1.0 => self.top_p,
            _ => self.unfiltered,
        }
    }
}

impl Rates {
    /// What is assumed of a machine of the class, until something was measured.
    ///
    /// Of a processor, one thread of an AMD EPYC (Zen 4): products as `make bench` measures them; the other rates fitted
    /// to the stages of `smoke`, `countdown` and `sudoku`, and to `cargo bench` of `choice` and `update`. Of a GPU, 40 %
    /// of the peak that NVIDIA gives for bf16; its products include what is between them. Adapters have a rank too small
    /// to be limited by anything but memory: at rank 64, 64 operations a byte for A, which reads x, and 32 for B, which reads
    /// and writes y.
    pub fn assumed(class: Numerics) -> Self {
        let of_thread = Self {
            products: 98e9,
            adapters: 98e9,
            forward: 1.0e-9,
            backward: 1.8e-9,
            choice: Choice { unfiltered: 0.78e-9, top_k: 0.39e-9, top_p: 4.3e-9 },
            grading: 5e-6,
            sum: 2e-9,
            join: 2e-9,
            step: 4e-9,
            output: 10e-9,
            hash: 1.8e9,
            fetch: 5e9,
            store: 0.7e9,
            load: 4e9,
            records: 1.5e-3,
        };
        let (peak, memory) = match class {
            Numerics::CpuPortable | Numerics::CpuNative => return of_thread,
            Numerics::Cuda { sm: 90.. } => (989e12, 3.35e12),
            Numerics::Cuda { sm: 80..90 } => (312e12, 2.0e12),
            Numerics::Cuda { .. } => (100e12, 0.8e12),
        };
        // Five readings of a logit in f32, at 80 % of the memory's rate.
        let logit = 5.0 * 4.0 / (0.8 * memory);
        Self {
            products: 0.4 * peak,
            adapters: (0.8 * memory * 42.7f64).min(0.4 * peak),
            forward: 0.0,
            backward: 0.0,
            sum: 12.0 / (0.8 * memory),
            choice: Choice { unfiltered: logit, top_k: logit, top_p: logit },
            load: 12e9,
            ..of_thread
        }
    }
}
