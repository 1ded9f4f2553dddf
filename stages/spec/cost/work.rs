//! The operations of forward and backward passes, and of decoding. Knows no rates but where it adds seconds up.

use super::Rates;
use crate::memory::{PassSizes, Sizes, Workload};
use crate::run::{Cache, PositionRule, Sampler};

/// What passes ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Work {
    /// Operations of products and attention.
    pub(super) products: f64,
    /// Operations of adapters.
    pub(super) adapters: f64,
    /// Numbers that blocks make between products, in forward passes.
    pub(super) forward: f64,
    /// The same in backward passes.
    pub(super) backward: f64,
}

/// The tokens that a pass computes of a sequence, those that it attends to, and the positions that are read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) tokens: f64,
    pub(super) length: f64,
    pub(super) queried: f64,
}

impl Work {
    pub(super) fn times(self, count: f64) -> Self {
        Self {
            products: self.products * count,
            adapters: self.adapters * count,
            forward: self.forward * count,
            backward: self.backward * count,
        }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            products: self.products + other.products,
            adapters: self.adapters + other.adapters,
            forward: self.forward + other.forward,
            backward: self.backward + other.backward,
        }
    }

    /// A forward pass with its backward pass, which takes so many products for each of the forward pass. Adapters need
    /// the gradients of their inputs and of their own.
    pub(super) fn there_and_back(self, back: f64) -> Self {
        Self {
            products: self.products * (1.0 + back),
            adapters: self.adapters * 3.0,
            forward: self.forward,
            backward: self.forward,
        }
    }

    /// Seconds of the passes without their adapters.
    pub(super) fn passes(&self, rates: &Rates) -> f64 {
        self.products / rates.products
            + self.forward * rates.forward
            + self.backward * rates.backward
    }
}

impl Sizes {
    /// Floating-point operations of a forward pass whose last block computes all tokens: what the algorithm asks for, by
    /// which shares of a machine's peak are given.
    pub fn forward_flops(&self, pass: &PassSizes) -> f64 {
        let [d, n, m, v] =
            [self.d_model, self.n_layers, self.inner(), self.vocabulary].map(|x| x as f64);
        let [a, c] = [self.queries(), self.keys()].map(|x| x as f64);
        let [sequences, length, queried] =
            [pass.sequences, pass.length, pass.queried].map(|x| x as f64);
        let matrices = 2.0 * d * a + 2.0 * d * c + 3.0 * d * m;
        let blocks = 2.0 * length * n * matrices + 4.0 * n * length * length * a;
        sequences * (blocks + 2.0 * queried * v * d)
    }
}

impl Workload {
    /// A forward pass over one sequence.
    pub(super) fn work(&self, asked: &Asked) -> Work {
        let Sizes { d_model, n_layers, vocabulary, .. } = self.sizes;
        let [d, n, m, v] = [d_model, n_layers, self.sizes.inner(), vocabulary].map(|x| x as f64);
        let [a, c] = [self.sizes.queries(), self.sizes.keys()].map(|x| x as f64);
        let Asked { tokens, length, queried } = *asked;
        let keys = 4.0 * d * c;
        let block = 4.0 * d * a + 4.0 * d * c + 6.0 * d * m + 4.0 * length * a;
        let products =
            (n - 1.0) * tokens * block + tokens * keys + queried * (block - keys + 2.0 * v * d);
        let made = 5.0 * d + 4.0 * a + 4.0 * c + 4.0 * m;
        let forward = (n - 1.0) * tokens * made + tokens * (d + 2.0 * c) + queried * made;
        let adapters = self.lora.as_ref().map_or(0.0, |lora| {
            let one = |lora: &crate::run::LoraConfig| self.sizes.adapter(lora) as f64;
            let blocks = one(&crate::run::LoraConfig { head: false, ..lora.clone() });
            let keys =
                lora.targets.iter().filter(|name| matches!(name.as_str(), "k_proj" | "v_proj"));
            let keys = keys.count() as f64 * f64::from(lora.rank) * (d + c);
            let head = one(lora) - blocks;
            let block = blocks / n;
            2.0 * ((n - 1.0) * tokens * block + tokens * keys + queried * (block - keys + head))
        });
        Work { products, adapters, forward, backward: 0.0 }
    }

    /// The passes that decode rows, and the logits of positions whose token is chosen. In their first step, `alike` of
    /// the rows share a state with another one.
    pub(super) fn decoded(
        &self,
        sampler: &Sampler,
        length: u64,
        rows: f64,
        alike: f64,
    ) -> (Work, f64) {
        let [completion, block, steps] =
            [sampler.completion_tokens, sampler.block_tokens, sampler.steps].map(f64::from);
        let length = length as f64;
        let (blocks, written) = (completion / block, completion / steps.max(1.0));
        // A step in random order or from left to right knows its positions; in other orders it looks at all masked ones.
        let queried = match (sampler.position, sampler.threshold) {
            (PositionRule::Random | PositionRule::LeftToRight, None) => written,
            _ => f64::midpoint(block, written),
        };
        let pass = |tokens| self.work(&Asked { tokens, length, queried });
        // With a cache, passes of a block after its first leave out what is before it, or all that is outside.
        let later = match sampler.cache {
            Cache::None => length,
            Cache::Prefix => f64::midpoint(completion, block),
            Cache::Dual => block,
        };
        let whole = pass(length).times(rows * blocks - alike);
        let work = whole.plus(pass(later).times(rows * (steps - blocks).max(0.0)));
        (work, rows * steps * queried * self.sizes.vocabulary as f64)
    }
}
