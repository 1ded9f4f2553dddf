//! Attention with rotary embeddings, head by head.
//!
//! ```text
//! q, k rotated;  P = softmax(q k' / sqrt(E)) over the keys that the query sees;  y = P v
//! dv = P' dy,  dS = P (dy v' - rowsum(P dy v')),  dq = dS k / sqrt(E),  dk = dS' q / sqrt(E), rotated back
//! ```
//! (Dao et al., arXiv 2205.14135, whose backward pass also computes P again from q and k.) Holds no more scores than
//! those of one head and a few queries. A query's result depends on its own sequence's keys alone.

use tch::Tensor;

use super::custom::{differentiable, is_recorded};
use super::lanes::vectorised;
use super::memory::{filled, filled_several, in_one_piece, numbers};
use super::phases::{Phase, measured};

mod backward;
mod forward;
mod head;
mod task;

use backward::backward;
use forward::forward;
use task::{Places, Source, Task};

/// Some of the heads of a tensor B x L x G x E: from `first` on, as many as a query has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heads<'a> {
    pub(crate) of: &'a Tensor,
    pub(crate) first: i64,
}

/// Where the queries are in their sequences.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Positions<'a> {
    /// One after another, from this position on.
    From(i64),
    /// B x Q, i64.
    At(&'a Tensor),
}

/// The tables of the rotary embedding, each L x 1 x E; the sine carries the sign of its half.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Angles<'a> {
    pub(crate) cos: &'a Tensor,
    pub(crate) sin: &'a Tensor,
}

/// The keys that queries see.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'a> {
    /// Tokens of a block, where queries see no block behind their own; counted from a sequence's first key.
    pub(crate) block: Option<i64>,
    /// B x 1 x 1 x L: -inf where a key is padding, and 0 elsewhere.
    pub(crate) bias: Option<&'a Tensor>,
}

/// softmax(q k' / sqrt(E)) v of rotated q and k: B x Q x H x E. Keys are at positions 0, 1, ...; each of their K heads
/// serves H / K of queries.
pub(crate) fn attention(
    [q, k, v]: [Heads<'_>; 3],
    [heads, kv_heads]: [i64; 2],
    positions: Positions<'_>,
    angles: Angles<'_>,
    seen: Seen<'_>,
) -> Tensor {
    let mut inputs: Vec<&Tensor> = vec![];
    let [q_of, k_of, v_of] = [q, k, v].map(|heads| {
        let known = inputs.iter().position(|input| input.as_ptr() == heads.of.as_ptr());
        let source = known.unwrap_or_else(|| {
            inputs.push(heads.of);
            inputs.len() - 1
        });
        Source { number: source, first: count(heads.first), heads: count(heads.of.size()[2]) }
    });
    let size = q.of.size();
    let task = Task {
        inputs: inputs.iter().map(|input| in_one_piece(&input.detach())).collect(),
        q: q_of,
        k: k_of,
        v: v_of,
        batch: count(size[0]),
        queries: count(size[1]),
        keys: count(k.of.size()[1]),
        heads: count(heads),
        sharing: count(heads / kv_heads),
        width: count(size[3]),
        cos: in_one_piece(angles.cos),
        sin: in_one_piece(angles.sin),
        positions: places(positions, size[0] * size[1]),
        block: seen.block.map(count),
        attended: seen.bias.map(attended),
    };
    let mut stats = vec![[0f32; 2]; if is_recorded(&inputs) { task.rows() } else { 0 }];
    let y = filled(&[size[0], size[1], heads, size[3]], |y| {
        let (view, stats) = (&task.view(), &mut stats[..]);
        measured(Phase::Attention, || vectorised!(forward(view, y, stats)));
    });
    let sizes: Vec<_> = inputs.iter().map(|input| input.size()).collect();
    differentiable(&inputs, y, move |dy| {
        let dy = in_one_piece(dy);
        let gradients = filled_several(&sizes, |gradients| {
            let (view, dy, stats) = (&task.view(), numbers(&dy), &stats[..]);
            measured(Phase::Attention, || vectorised!(backward(view, dy, stats, gradients)));
        });
        gradients.into_iter().map(Some).collect()
    })
}

fn places(positions: Positions<'_>, all: i64) -> Places {
    match positions {
        Positions::From(first) => Places::From(count(first)),
        Positions::At(positions_BQ) => {
            let mut found = vec![0i64; count(all)];
            positions_BQ.contiguous().copy_data(&mut found, count(all));
            Places::Of(found.into_iter().map(count).collect())
        }
    }
}

/// The positions of each sequence that are no padding.
fn attended(bias_B11L: &Tensor) -> Vec<Vec<usize>> {
    let bias = bias_B11L.contiguous();
    let length = count(bias.size()[3]);
    let of = |row: &[f32]| (0..length).filter(|&key| row[key] == 0.0).collect();
    numbers(&bias).chunks_exact(length).map(of).collect()
}

fn count(size: i64) -> usize {
    usize::try_from(size).expect("sizes and positions are not negative")
}

#[cfg(test)]
mod tests;
