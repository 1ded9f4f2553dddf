//! The sizes of a model, and the numbers of weights that follow from them. `memory.rs` has the formulas. Knows no pass.

use crate::family::{AttendsTo, Family};
use crate::run::{Base, CheckpointConfig, FamilyShape, LoraConfig, ModelShape};

/// The sizes of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// The family, which decides about biases and norms of heads.
    pub family: Family,
    /// D, width of the residual stream.
    pub d_model: u64,
    /// n, blocks.
    pub n_layers: u64,
    /// H, heads of queries.
    pub n_heads: u64,
    /// K, heads of keys and of values.
    pub n_kv_heads: u64,
    /// E, size of a head.
    pub head_size: u64,
    /// M, width inside the SwiGLU, of each expert where there are some.
    pub mlp_hidden_size: u64,
    /// X, experts of a block; 1 where it has one SwiGLU.
    pub n_experts: u64,
    /// How many of them a token chooses.
    pub experts_per_token: u64,
    /// V, rows of the embedding and of the head.
    pub vocabulary: u64,
}

impl Sizes {
    /// The sizes of a run's base; `vocabulary` is used if the run trains its own model.
    pub(super) fn of(base: &Base, vocabulary: u64) -> Self {
        match base {
            Base::Scratch(shape, _) => Self::new(shape, vocabulary),
            Base::Checkpoint(CheckpointConfig { shape, .. }) => Self::of_family(
                &shape.into(),
                [shape.n_layers, shape.mlp_hidden_size],
                shape.embedding_size.into(),
            ),
        }
    }

    /// The sizes of a run's own model; the vocabulary is the tokenizer's.
    pub fn new(shape: &ModelShape, vocabulary: u64) -> Self {
        Self::of_family(&shape.into(), [shape.n_layers, shape.mlp_hidden_size], vocabulary)
    }

    fn of_family(
        shape: &FamilyShape,
        [n_layers, mlp_hidden_size]: [u32; 2],
        vocabulary: u64,
    ) -> Self {
        Self {
            family: shape.family,
            d_model: shape.d_model.into(),
            n_layers: n_layers.into(),
            n_heads: shape.n_heads.into(),
            n_kv_heads: shape.n_kv_heads.unwrap_or(shape.n_heads).into(),
            head_size: shape.head_size.unwrap_or(shape.d_model / shape.n_heads.max(1)).into(),
            mlp_hidden_size: mlp_hidden_size.into(),
            n_experts: shape.n_experts.unwrap_or(1).into(),
            experts_per_token: shape.experts_per_token.unwrap_or(1).into(),
            vocabulary,
        }
    }

    /// A, width of all heads of queries.
    pub(crate) fn queries(&self) -> u64 {
        product(&[self.n_heads, self.head_size])
    }

    /// C, width of all heads of keys, and of values.
    pub(crate) fn keys(&self) -> u64 {
        product(&[self.n_kv_heads, self.head_size])
    }

    /// Whether what is behind a position has no part in its prediction.
    pub(crate) fn is_causal(&self) -> bool {
        self.family.traits().attends_to == AttendsTo::Before
    }

    /// Width inside all the SwiGLUs that compute a token.
    pub(crate) fn inner(&self) -> u64 {
        product(&[self.mlp_hidden_size, self.experts_per_token])
    }

    /// P, the number of weights.
    pub fn weights(&self) -> u64 {
        let (d, traits) = (self.d_model, self.family.traits());
        let (a, c) = (self.queries(), self.keys());
        let mlp = product(&[self.mlp_hidden_size, self.n_experts]);
        let matrices = [[2, d, a], [2, d, c], [3, d, mlp]];
        let router = traits.tensors.experts.as_ref().map_or(0, |_| product(&[self.n_experts, d]));
        let biases = if traits.has_qkv_bias { a + 2 * c } else { 0 };
        let of_heads = traits.tensors.qk_norms.map_or(0, |_| 2 * self.head_size);
        let block = matrices.map(|factors| product(&factors)).iter().sum::<u64>();
        let block = block + 2 * d + biases + of_heads + router;
        product(&[2, self.vocabulary, d]) + d + product(&[self.n_layers, block])
    }

    /// How many numbers an adapter's matrices have.
    pub fn adapter(&self, lora: &LoraConfig) -> u64 {
        let (d, m) = (self.d_model, self.mlp_hidden_size);
        let (a, c) = (self.queries(), self.keys());
        let mlp = product(&[self.n_experts, d + m]);
        let both = [d + a, d + c, d + c, a + d, mlp, mlp, mlp];
        let modules = self.family.traits().tensors.targets();
        let of_module = |target: &String| {
            modules.iter().zip(both).find(|(name, _)| *name == target).map_or(0, |(_, both)| both)
        };
        let of_block: u64 = lora.targets.iter().map(of_module).sum();
        let head = if lora.head { d + self.vocabulary } else { 0 };
        product(&[lora.rank.into(), product(&[self.n_layers, of_block]) + head])
    }
}

/// A product that saturates instead of wrapping.
pub(super) fn product(factors: &[u64]) -> u64 {
    factors.iter().fold(1, |so_far, &factor| so_far.saturating_mul(factor))
}
