//! Passes over a window of positions, beside keys and values kept from an earlier pass over all of them
//! (Fast-dLLM, Wu et al., arXiv 2505.22618).
//!
//! ```text
//! keys, values at j = those of this pass, for j in the window; those that were kept, elsewhere
//! ```
//! A window from its first position to the end is Fast-dLLM's prefix cache; one that ends earlier is its
//! dual cache. As long as no token of the window has changed since, the pass is exact; once one has, what
//! was kept is stale, and the pass an approximation.
//!
//! Keys are kept before rotation and rotated where they are used, by absolute positions. What was kept
//! does not change: a window is computed whole, so nothing of an earlier window is read again.
//! Differentiates nothing, and does not decide when to keep or renew.

use agrpo_spec::Predicts;
use tch::{Tensor, no_grad_guard};

use super::queries::{Queries, before, select};
use super::{Attended, Policy, Sequences, rms_norm};
use crate::error::{Result, internal, libtorch};
use crate::kernels::Heads;
use crate::model::weights::Block;
use crate::tensors::upload;

/// Keys and values of all positions of B sequences, from every block.
#[derive(Debug)]
pub(crate) struct KeyValues {
    blocks: Vec<Kept>,
    sequences: Sequences,
}

#[derive(Debug)]
struct Kept {
    /// Before norm and rotation.
    k_BLKE: Tensor,
    v_BLKE: Tensor,
}

/// Positions `start..start + W` of N sequences.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window<'a> {
    /// i64, N x W; none of them padding.
    pub(crate) ids_NW: &'a Tensor,
    pub(crate) start: i64,
    /// i64, N: each one's number among the sequences whose keys and values were kept.
    pub(crate) kept_N: &'a Tensor,
}

/// Where the positions of a pass lie, and what they attend to.
struct Span<'a> {
    start: i64,
    /// The queried positions, counted in the whole sequence.
    queries_NQ: &'a Tensor,
    sequences: &'a Sequences,
    bias: Option<&'a Tensor>,
}

impl Policy {
    /// What [`Policy::hidden`] gives at the queried positions, to the bit, and the keys and values of all
    /// positions. `ids_BL` is i64, B x L, with [`super::PADDING`] where a sequence has no token; `queries_BQ` is
    /// i64, B x Q.
    pub(crate) fn hidden_and_keep(
        &self,
        ids_BL: &Tensor,
        queries_BQ: &Tensor,
    ) -> Result<(Tensor, KeyValues)> {
        let _no_grad = no_grad_guard();
        let sequences = self.sequences(ids_BL)?;
        let queries_NQ = &self.rows_at(queries_BQ);
        let bias = sequences.bias.as_ref();
        let span = Span { start: 0, queries_NQ, sequences: &sequences, bias };
        let mut blocks = vec![];
        let hidden_BQD = self.through_blocks(&sequences.tokens_BL, &span, |_, own| {
            blocks.push(Kept { k_BLKE: own.k_BLKE.copy(), v_BLKE: own.v_BLKE.copy() });
            own
        });
        Ok((hidden_BQD, KeyValues { blocks, sequences }))
    }

    /// Normalised hidden states at positions of the window, N x Q x D, in the weights' kind. `queries_NQ`
    /// is i64, N x Q, and counts positions in the whole sequence.
    pub(crate) fn hidden_in_window(
        &self,
        window: &Window<'_>,
        queries_NQ: &Tensor,
        all: &KeyValues,
    ) -> Result<Tensor> {
        let _no_grad = no_grad_guard();
        let start = window.start;
        let [ids_NW, kept_N] = [window.ids_NW, window.kept_N].map(|t| upload(t, self.device()));
        let queries_NQ = self.rows_at(queries_NQ);
        let (_, width) = ids_NW.size2().map_err(libtorch)?;
        let (end, length) = (start + width, all.sequences.length);
        if start < 0 || end > length {
            return Err(internal(format!(
                "the window {start}..{end} lies outside 0..{length}, the positions that were kept"
            )));
        }
        let bias = all.sequences.bias.as_ref().map(|bias| bias.index_select(0, &kept_N));
        let bias = bias.as_ref();
        let span = Span { start, queries_NQ: &queries_NQ, sequences: &all.sequences, bias };
        // The window's own between those that were kept: N x W x K x E to N x L x K x E.
        let between = |own: &Tensor, kept_BLKE: &Tensor| {
            let outside =
                |from: i64, to: i64| kept_BLKE.narrow(1, from, to - from).index_select(0, &kept_N);
            Tensor::cat(&[outside(0, start), own.shallow_clone(), outside(end, length)], 1)
        };
        Ok(self.through_blocks(&ids_NW, &span, |block, own| {
            let Kept { k_BLKE, v_BLKE } = &all.blocks[block];
            Kept { k_BLKE: between(&own.k_BLKE, k_BLKE), v_BLKE: between(&own.v_BLKE, v_BLKE) }
        }))
    }

    /// The rows that predict queried positions, N x Q.
    fn rows_at(&self, queries_NQ: &Tensor) -> Tensor {
        let rows_NQ = match self.config.family.traits().predicts {
            Predicts::Itself => queries_NQ.shallow_clone(),
            Predicts::Next => before(queries_NQ),
        };
        upload(&rows_NQ, self.device())
    }

    /// Computes all blocks in turn. `whole` completes the keys and values of the computed positions to those of all
    /// positions.
    fn through_blocks(
        &self,
        ids_NW: &Tensor,
        span: &Span<'_>,
        mut whole: impl FnMut(usize, Kept) -> Kept,
    ) -> Tensor {
        let mut x = Tensor::embedding(&self.weights.wte_VxD, ids_NW, -1, false, false);
        let last = self.weights.blocks.len() - 1;
        for (n, block) in self.weights.blocks.iter().enumerate() {
            x = self.block_in_span(block, &x, n == last, span, |own| whole(n, own));
        }
        rms_norm(&x, &self.weights.ln_f_D, self.config.rms_norm_eps)
    }

    /// One block, its result at all computed positions or, if it is the last, at the queried ones. The operations are
    /// those of [`Policy::block`].
    fn block_in_span(
        &self,
        block: &Block,
        x_NWD: &Tensor,
        is_last: bool,
        span: &Span<'_>,
        whole: impl FnOnce(Kept) -> Kept,
    ) -> Tensor {
        let (heads, kv_heads) = (self.config.n_heads, self.config.n_kv_heads);
        let normed_NWD = rms_norm(x_NWD, &block.attn_norm_D, self.config.rms_norm_eps);
        let (q, kv, residual, queries) = if is_last {
            let inside = Queries::At(span.queries_NQ - span.start);
            let kv = self.by_head(&block.qkv.apply_some(&normed_NWD, 1..3));
            let q = block.qkv.apply_some(&select(&normed_NWD, &inside), 0..1);
            let queries = Queries::At(span.queries_NQ.shallow_clone());
            (self.by_head(&q), kv, select(x_NWD, &inside), queries)
        } else {
            let qkv = self.by_head(&block.qkv.apply(&normed_NWD));
            let (q, kv) = (qkv.narrow(2, 0, heads), qkv.narrow(2, heads, 2 * kv_heads));
            let queries = Queries::Range { start: span.start, len: x_NWD.size()[1] };
            (q, kv, x_NWD.shallow_clone(), queries)
        };
        let (k_BLKE, v_BLKE) = (kv.narrow(2, 0, kv_heads), kv.narrow(2, kv_heads, kv_heads));
        let all = whole(Kept { k_BLKE, v_BLKE });
        let at = Attended {
            queries: &queries,
            rotation: &span.sequences.rotation,
            block: span.sequences.block,
            bias: span.bias,
            is_padded: is_last,
        };
        let of = |of| Heads { of, first: 0 };
        let mixed_NQHE = self.attend(block, [of(&q), of(&all.k_BLKE), of(&all.v_BLKE)], &at);
        self.after_attention(block, &mixed_NQHE, &residual)
    }
}

#[cfg(test)]
mod tests;
