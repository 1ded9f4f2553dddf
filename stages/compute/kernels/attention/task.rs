//! What an attention reads: which heads of which inputs, at which positions, and what they attend to.

use tch::Tensor;

use super::super::memory::numbers;

/// Queries of one head that are computed together.
pub(super) const QUERIES: usize = 64;

/// Heads in one of the inputs.
#[derive(Clone, Copy)]
pub(super) struct Source {
    pub(super) number: usize,
    pub(super) first: usize,
    /// Of the whole input, G.
    pub(super) heads: usize,
}

/// Where the queries are in their sequences.
pub(super) enum Places {
    /// One after another, from this position on, in every sequence.
    From(usize),
    /// One for each query of the batch.
    Of(Vec<usize>),
}

/// An attention, with handles on all that it reads.
pub(super) struct Task {
    pub(super) inputs: Vec<Tensor>,
    pub(super) q: Source,
    pub(super) k: Source,
    pub(super) v: Source,
    pub(super) batch: usize,
    pub(super) queries: usize,
    pub(super) keys: usize,
    /// Of queries, H.
    pub(super) heads: usize,
    /// How many of them share a head of keys and values.
    pub(super) sharing: usize,
    /// Of a head, E.
    pub(super) width: usize,
    pub(super) cos: Tensor,
    pub(super) sin: Tensor,
    pub(super) positions: Places,
    /// Tokens of a block, where queries see no block behind their own.
    pub(super) block: Option<usize>,
    /// The keys of each sequence; all where there is no padding.
    pub(super) attended: Option<Vec<Vec<usize>>>,
}

impl Task {
    /// Queries of all heads and sequences.
    pub(super) fn rows(&self) -> usize {
        self.batch * self.heads * self.queries
    }

    /// The task and its tensors' memory.
    pub(super) fn view(&self) -> View<'_> {
        let inputs = self.inputs.iter().map(numbers).collect();
        View { task: self, inputs, cos: numbers(&self.cos), sin: numbers(&self.sin) }
    }

    /// Where a head's numbers begin in its input, which has `length` positions.
    pub(super) fn start(
        &self,
        source: Source,
        length: usize,
        (b, position, head): (usize, usize, usize),
    ) -> usize {
        ((b * length + position) * source.heads + source.first + head) * self.width
    }

    pub(super) fn position(&self, b: usize, query: usize) -> usize {
        match &self.positions {
            Places::Of(all) => all[b * self.queries + query],
            Places::From(first) => first + query,
        }
    }

    /// How many of its sequence's keys a query sees, the first ones. Blocks are counted from the first key; what is before
    /// it, padding, sees the first block.
    pub(super) fn seen(&self, attended: &[usize], b: usize, query: usize) -> usize {
        let (Some(block), Some(first)) = (self.block, attended.first()) else {
            return attended.len();
        };
        let own = self.position(b, query).saturating_sub(*first) / block;
        ((own + 1) * block).min(attended.len())
    }

    pub(super) fn attended(&self, b: usize) -> Vec<usize> {
        self.attended.as_ref().map_or_else(|| (0..self.keys).collect(), |all| all[b].clone())
    }
}

/// A task, and the numbers of its tensors.
pub(super) struct View<'a> {
    pub(super) task: &'a Task,
    pub(super) inputs: Vec<&'a [f32]>,
    pub(super) cos: &'a [f32],
    pub(super) sin: &'a [f32],
}

impl std::ops::Deref for View<'_> {
    type Target = Task;

    fn deref(&self) -> &Task {
        self.task
    }
}
