//! Forward passes on a processor without a backward pass: a few sequences at a time, so that what a block computes is in
//! a cache when the next one reads it. The bits are those of [`Policy::hidden`] in one piece: no row of the kernels
//! depends on another sequence.

use tch::Tensor;

use super::{Policy, Queries, Sequences, rms_norm};
use crate::dedup::Distinct;
use crate::tensors::length;

/// Numbers of the widest intermediate result that lie in a cache beside what is computed from them.
const CACHED: i64 = 160 * 1024;

/// Rows of a product below which packing a weight would be felt.
const ROWS: i64 = 256;

impl Policy {
    /// Normalised hidden states of the queried positions, B x Q x D.
    pub(super) fn hidden_in_parts(&self, queries: &Queries, all: &Sequences) -> Tensor {
        let batch = all.tokens_BL.size()[0];
        let rows = ROWS.max(CACHED / (2 * self.config.mlp_hidden_size).max(1));
        let most = (rows / all.length.max(1)).max(1);
        let part = |from: i64| {
            let count = most.min(batch - from);
            self.hidden_of_part(&queries.narrow(from, count), &all.narrow(from, count))
        };
        let step = usize::try_from(most).expect("sizes are positive");
        let parts: Vec<Tensor> = (0..batch).step_by(step).map(part).collect();
        if let [whole] = &parts[..] { whole.shallow_clone() } else { Tensor::cat(&parts, 0) }
    }

    fn hidden_of_part(&self, queries: &Queries, all: &Sequences) -> Tensor {
        let mut x_BLD = self.embed(all);
        for (n, block) in self.weights.blocks.iter().enumerate() {
            x_BLD = match n {
                0 if self.weights.blocks.len() > 1 => {
                    self.block_of_qkv(block, &self.first_qkv(&all.tokens_BL), &x_BLD, all)
                }
                _ => self.segment(n, &x_BLD, queries, all),
            };
        }
        x_BLD
    }

    /// Queries, keys and values of the first block, B x L x G E. They depend on the token alone, so each is computed once.
    fn first_qkv(&self, tokens_BL: &Tensor) -> Tensor {
        let (size, block) = (tokens_BL.size(), &self.weights.blocks[0]);
        let mut tokens = vec![0; tokens_BL.numel()];
        tokens_BL.contiguous().copy_data(&mut tokens, tokens_BL.numel());
        let mut distinct = Distinct::default();
        let numbers: Vec<i64> =
            tokens.into_iter().map(|token: i64| length(distinct.number(token))).collect();
        let tokens_T = Tensor::from_slice(distinct.all());
        let x_TD = self.weights.wte_VxD.index_select(0, &tokens_T);
        let normed_TD = rms_norm(&x_TD, &block.attn_norm_D, self.config.rms_norm_eps);
        let qkv = block.qkv.apply(&normed_TD).index_select(0, &Tensor::from_slice(&numbers));
        qkv.view([size[0], size[1], -1])
    }
}

impl Sequences {
    /// Some of the sequences.
    fn narrow(&self, from: i64, count: i64) -> Self {
        let bias = self.bias.as_ref().map(|bias| bias.narrow(0, from, count));
        let tokens_BL = self.tokens_BL.narrow(0, from, count);
        let rotation = self.rotation.first(self.length);
        Self { tokens_BL, length: self.length, rotation, block: self.block, bias }
    }
}

impl Queries {
    /// Those of some of the sequences.
    fn narrow(&self, from: i64, count: i64) -> Self {
        match self {
            Self::At(positions_BQ) => Self::At(positions_BQ.narrow(0, from, count)),
            Self::Range { start, len } => Self::Range { start: *start, len: *len },
            Self::All => Self::All,
        }
    }
}

#[cfg(test)]
mod tests;
