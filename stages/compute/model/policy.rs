//! The forward pass of all families: Llama blocks (Touvron et al., arXiv 2302.13971), with what a family's traits add.
//!
//! ```text
//! h = x + o(softmax(q k' / sqrt(E)) v),    q, k = rope(norm(W n)), v = W n,  n = rmsnorm(x)
//! y = h + down(silu(gate(n)) * up(n)),     n = rmsnorm(h)
//! logits = head(rmsnorm(y)):               row i predicts position i or, in families that predict the next, i + 1
//! ```
//! The norm of q and k, head by head, and the biases of W are in some families only. Heads of q share those of k and v in
//! groups (Ainslie et al., arXiv 2305.13245). Queries see the whole sequence, or the blocks up to their own.
//!
//! The last block and the head run on the queried positions alone: the sampler asks for the masked
//! positions of a block, the learner for the positions of a step. Keys and values always come from
//! the whole sequence, so what is computed is exact. Passes that keep them are in `policy/cache.rs`.
//!
//! Sequences of one batch may differ in length: [`PADDING`] in place of an id is a position that no other
//! attends to. Padding decides which kernel attention runs in. In half precision nothing is padded, so that it is the
//! fastest one: states of one length share a pass ([`Policy::pads`]). Otherwise a shard that pads one of its prompts
//! pads all of them.
//!
//! Ids and queries are made on the host, and uploaded once. A pass waits for its device
//! only where tokens choose experts.

use std::collections::BTreeMap;

use agrpo_spec::{Predicts, Seed};
use tch::{Device, Kind, Tensor};

use super::linear::{Leaf, wide};
use super::weights::{self, Block, Weights};
use super::{config::ModelConfig, lora::Adapter, placement::Placement};
use crate::error::{Result, libtorch};
use crate::kernels::{self, Heads};
use crate::tensors::{NamedTensors, upload};

mod adapted;
mod attention;
mod cache;
mod folder;
mod parts;
mod queries;
mod rotation;
mod tape;

pub(crate) use adapted::adapter_of;
pub(super) use attention::{Attended, attention, hidden_from};
pub(crate) use cache::{KeyValues, Window};
pub use queries::Queries;
use queries::select;
pub(super) use rotation::Rotation;
use rotation::Rotations;
pub(crate) use tape::Tape;

/// In place of an id where a sequence has no token: on the left of the shorter prompts.
pub const PADDING: i64 = -1;

/// How many places of a sequence, the first ones, have no token.
pub(crate) fn padding(ids: &[i64]) -> usize {
    ids.iter().take_while(|&&id| id == PADDING).count()
}

/// A model and its special tokens. It computes in the kind of its weights: f32 from a file or a draw, f64 in
/// tests that the rounding of f32 would defeat.
#[derive(Debug)]
pub struct Policy {
    config: ModelConfig,
    weights: Weights,
    adapter: Option<Adapter>,
    rotations: Rotations,
}

/// A batch, and what every block needs to know of it.
#[derive(Debug)]
struct Sequences {
    /// An arbitrary token at padding.
    tokens_BL: Tensor,
    length: i64,
    rotation: Rotation,
    /// Tokens of a block of the attention; none where queries see the whole sequence.
    block: Option<i64>,
    /// -inf where a key is not attended to; none where all are. B x 1 x 1 x L, of padding alone, or B x 1 x L x L.
    bias: Option<Tensor>,
}

impl Sequences {
    fn attended<'a>(&'a self, queries: &'a Queries) -> Attended<'a> {
        Attended {
            queries,
            rotation: &self.rotation,
            block: self.block,
            bias: self.bias.as_ref(),
            // With all positions queried, their number depends on the state alone.
            is_padded: !matches!(queries, Queries::All),
        }
    }
}

impl Policy {
    /// A new model with weights drawn from `seed`.
    pub fn draw(config: ModelConfig, init_std: f64, seed: Seed) -> Result<Self> {
        let named = weights::draw(&config, init_std, seed);
        Self::from_named(config, named, Kind::Float)
    }

    /// A policy from this program's own tensors, in one kind.
    pub(crate) fn from_named(config: ModelConfig, named: NamedTensors, kind: Kind) -> Result<Self> {
        let weights = Weights::from_named(&config, &named, kind)?;
        Ok(Self::of(config, weights))
    }

    fn of(config: ModelConfig, weights: Weights) -> Self {
        Self { config, weights, adapter: None, rotations: Rotations::default() }
    }

    /// The same policy on a device, without gradients. Does not copy tensors that are already there.
    #[must_use]
    pub fn on(self, device: crate::Device) -> Self {
        Self { weights: self.weights.map(|t| t.detach().to_device(device.of_tch())), ..self }
    }

    /// Where the weights are, and in which kind.
    pub fn placement(&self) -> Placement {
        Placement { device: self.device(), kind: self.weights.wte_VxD.kind() }
    }

    /// Where the weights are, and so where it computes.
    pub fn device(&self) -> Device {
        self.weights.wte_VxD.device()
    }

    /// The same policy in f64, with leaves of its own.
    #[cfg(test)]
    pub(crate) fn to_double(&self) -> Self {
        self.with_weights(self.weights.map(|tensor| super::linear::of_kind(tensor, Kind::Double)))
    }

    fn with_weights(&self, weights: Weights) -> Self {
        let (config, adapter) = (self.config.clone(), self.adapter.clone());
        Self { config, weights, adapter, rotations: self.rotations.clone() }
    }

    /// Whether a pass takes sequences of several lengths, padded to one.
    pub(crate) fn pads(&self) -> bool {
        let kind = self.placement().kind;
        wide(kind) == kind
    }

    /// The model's sizes and special tokens.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The trained parameters: all weights by the checkpoint's names or, if there is an adapter, its matrices by PEFT's
    /// names.
    pub fn parameters(&self) -> BTreeMap<String, Tensor> {
        self.to_named(Tensor::detach)
    }

    /// Makes every parameter require gradients.
    pub fn require_grad(&self) {
        for (_, leaf) in self.leaves() {
            // The returned handle is the same tensor.
            drop(leaf.set_requires_grad(true));
        }
    }

    /// The gradients accumulated so far, by the parameters' names; zero where there was none.
    pub fn gradients(&self) -> BTreeMap<String, Tensor> {
        self.to_named(|leaf| {
            let grad = leaf.grad();
            if grad.defined() { grad } else { leaf.zeros_like() }
        })
    }

    /// Zeroes the gradients.
    #[cfg(test)]
    pub(crate) fn zero_grad(&self) {
        for (_, leaf) in self.leaves() {
            let mut grad = leaf.grad();
            if grad.defined() {
                drop(grad.detach_().zero_());
            }
        }
    }

    fn leaves(&self) -> Vec<Leaf<'_>> {
        if self.adapter.is_some() { self.weights.adapters() } else { self.weights.leaves() }
    }

    /// The results of `of` for each leaf, part by part.
    fn to_named(&self, of: impl Fn(&Tensor) -> Tensor) -> NamedTensors {
        let parts = |(names, leaf): Leaf<'_>| {
            let (names, rows): (Vec<String>, Vec<i64>) = names.into_iter().unzip();
            names.into_iter().zip(of(leaf).split_with_sizes(rows, 0))
        };
        self.leaves().into_iter().flat_map(parts).collect()
    }

    /// Logits of hidden states, ... x D to ... x V, in the weights' kind.
    pub fn head(&self, hidden: &Tensor) -> Tensor {
        self.weights.ff_out.apply(hidden)
    }

    /// Normalised hidden states of the queried positions, B x Q x D, in the weights' kind. `ids_BL` is
    /// i64, B x L, with [`PADDING`] where a sequence has no token; best on the host, like queries.
    pub fn hidden(&self, ids_BL: &Tensor, queries: &Queries) -> Result<Tensor> {
        let (all, queries) = (self.sequences(ids_BL)?, self.rows(queries, ids_BL));
        if kernels::compute(&self.weights.wte_VxD) && !kernels::records_gradients() {
            return Ok(self.hidden_in_parts(&queries, &all));
        }
        let mut x = self.embed(&all);
        for n in 0..self.weights.blocks.len() {
            x = self.segment(n, &x, &queries, &all);
        }
        Ok(x)
    }

    /// The residual stream before the first block, B x L x D.
    fn embed(&self, all: &Sequences) -> Tensor {
        Tensor::embedding(&self.weights.wte_VxD, &all.tokens_BL, -1, false, false)
    }

    /// Block n; the last one at the queried positions and with the norm behind it.
    fn segment(&self, n: usize, x_BLD: &Tensor, queries: &Queries, all: &Sequences) -> Tensor {
        let block = &self.weights.blocks[n];
        if n + 1 < self.weights.blocks.len() {
            return self.block(block, x_BLD, &Queries::All, all);
        }
        let x_BQD = self.block(block, x_BLD, queries, all);
        rms_norm(&x_BQD, &self.weights.ln_f_D, self.config.rms_norm_eps)
    }

    /// The rows that predict the queried positions, on the device of the policy. Row 0 predicts position 0 in every family.
    fn rows(&self, queries: &Queries, ids_BL: &Tensor) -> Queries {
        let queries = match self.config.family.traits().predicts {
            Predicts::Itself => return queries.on(self.device()),
            Predicts::Next => queries.before(ids_BL.size()[0], ids_BL.size()[1]),
        };
        queries.on(self.device())
    }

    /// On the device of the policy. Asks whether anything is padded where the ids are: on the host, without waiting.
    fn sequences(&self, ids_BL: &Tensor) -> Result<Sequences> {
        let length = ids_BL.size2().map_err(libtorch)?.1;
        let (kind, device) = (self.placement().kind, self.device());
        let padded_BL = ids_BL.eq(PADDING);
        let is_padded = padded_BL.any().int64_value(&[]) != 0;
        let block = self.config.block();
        // The kernels know where blocks end.
        let in_bias = block.filter(|_| !kernels::compute(&self.weights.wte_VxD));
        let bias = match in_bias {
            Some(block) => Some(hidden_from(&padded_BL, block).unsqueeze(1)),
            None => is_padded.then(|| padded_BL.unsqueeze(1).unsqueeze(1)),
        };
        let bias = bias.map(|hidden| {
            let zeros = Tensor::zeros(hidden.size(), (kind, ids_BL.device()));
            upload(&zeros.masked_fill(&hidden, f64::NEG_INFINITY), device)
        });
        let tokens_BL = upload(&ids_BL.masked_fill(&padded_BL, 0), device);
        let head = (self.config.head_size, self.config.rope_theta);
        let rotation = self.rotations.of(head, length, (wide(kind), device));
        Ok(Sequences { tokens_BL, length, rotation, block, bias })
    }

    /// One block, its result at the queried positions only: B x Q x D.
    fn block(&self, block: &Block, x_BLD: &Tensor, queries: &Queries, all: &Sequences) -> Tensor {
        let normed_BLD = rms_norm(x_BLD, &block.attn_norm_D, self.config.rms_norm_eps);
        if matches!(queries, Queries::All) {
            return self.block_of_qkv(block, &block.qkv.apply(&normed_BLD), x_BLD, all);
        }
        let q = self.by_head(&block.qkv.apply_some(&select(&normed_BLD, queries), 0..1));
        let kv = self.by_head(&block.qkv.apply_some(&normed_BLD, 1..3));
        let of = |of, first| Heads { of, first };
        let parts = [of(&q, 0), of(&kv, 0), of(&kv, self.config.n_kv_heads)];
        let mixed_BQHE = self.attend(block, parts, &all.attended(queries));
        self.after_attention(block, &mixed_BQHE, &select(x_BLD, queries))
    }

    /// The rest of a block at all positions, from their queries, keys and values.
    fn block_of_qkv(&self, block: &Block, qkv: &Tensor, x_BLD: &Tensor, all: &Sequences) -> Tensor {
        let (heads, qkv) = (self.config.n_heads, self.by_head(qkv));
        let of = |first| Heads { of: &qkv, first };
        let parts = [of(0), of(heads), of(heads + self.config.n_kv_heads)];
        let mixed_BLHE = self.attend(block, parts, &all.attended(&Queries::All));
        self.after_attention(block, &mixed_BLHE, x_BLD)
    }

    /// Attention to the keys of a block, with its norms of queries and keys where it has them: B x Q x H x E.
    fn attend(&self, block: &Block, [q, k, v]: [Heads<'_>; 3], at: &Attended<'_>) -> Tensor {
        let heads = [self.config.n_heads, self.config.n_kv_heads];
        let Some([of_q, of_k]) = &block.qk_norms_E else {
            return attention([q, k, v], heads, at);
        };
        let normed = |of: Heads<'_>, count, weight_E| {
            rms_norm(&of.of.narrow(2, of.first, count), weight_E, self.config.rms_norm_eps)
        };
        let (q, k) = (normed(q, heads[0], of_q), normed(k, heads[1], of_k));
        let of = |of| Heads { of, first: 0 };
        attention([of(&q), of(&k), v], heads, at)
    }

    /// B x L x G E as heads: B x L x G x E.
    fn by_head(&self, x: &Tensor) -> Tensor {
        x.unflatten(-1, [-1, self.config.head_size])
    }

    /// The rest of a block: adds the result of attention to the residual stream, then that of the SwiGLU or of experts.
    fn after_attention(&self, block: &Block, mixed_BQHE: &Tensor, residual_BQD: &Tensor) -> Tensor {
        let mixed_BQD = mixed_BQHE.flatten(2, 3);
        let h_BQD = residual_BQD + block.attn_out.apply(&mixed_BQD);
        let normed_BQD = rms_norm(&h_BQD, &block.ff_norm_D, self.config.rms_norm_eps);
        let change_BQD = block.mlp.apply(&normed_BQD);
        h_BQD + change_BQD
    }
}

/// x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich, arXiv 1910.07467); the mean of half
/// precision in f32, as in LLaDA's own code.
pub(super) fn rms_norm(x: &Tensor, weight_D: &Tensor, eps: f64) -> Tensor {
    if kernels::compute(x) {
        return kernels::rms_norm(x, weight_D, eps);
    }
    let kind = x.kind();
    let x = x.to_kind(wide(kind));
    let mean_square = (&x * &x).mean_dim(-1, true, x.kind());
    (&x * (mean_square + eps).rsqrt()).to_kind(kind) * weight_D
}
