//! Gradient checkpointing: a forward pass that keeps only the inputs of its blocks, and a backward pass that
//! computes each block again (Chen et al., arXiv 1604.06174).
//!
//! The gradients are those of the plain backward pass to the bit: every block runs the same operations on the
//! same numbers, and gradients are added in the same order. libtorch's bindings do not take the gradient g of a
//! block's output y, so the pass goes backward from `sum(y * g)`, whose derivative by y is g exactly.

use agrpo_spec::StageError;
use tch::{Tensor, no_grad_guard};

use super::queries::Queries;
use super::{Policy, Sequences};

/// The backward pass of hidden states that were computed without a graph. Run it once the hidden states have
/// their gradient.
#[derive(Debug)]
pub(crate) struct Tape<'a> {
    policy: &'a Policy,
    all: Sequences,
    queries: Queries,
    /// What each block was given, B x L x D.
    inputs: Vec<Tensor>,
    hidden_BQD: Tensor,
}

impl Policy {
    /// The result of [`Policy::hidden`], as a leaf with a gradient, and the backward pass from it.
    pub(crate) fn hidden_checkpointed(
        &self,
        ids_BL: &Tensor,
        queries: &Queries,
    ) -> Result<(Tensor, Tape<'_>), StageError> {
        let (all, queries) = (self.sequences(ids_BL)?, self.rows(queries, ids_BL));
        let mut inputs = vec![];
        let hidden_BQD = {
            let _no_grad = no_grad_guard();
            let mut x = self.embed(&all);
            for n in 0..self.weights.blocks.len() {
                let y = self.segment(n, &x, &queries, &all);
                inputs.push(std::mem::replace(&mut x, y));
            }
            x
        };
        let hidden_BQD = hidden_BQD.set_requires_grad(true);
        let leaf = hidden_BQD.shallow_clone();
        Ok((leaf, Tape { policy: self, all, queries, inputs, hidden_BQD }))
    }
}

impl Tape<'_> {
    /// Adds the gradients of all that is trained below the hidden states.
    pub(crate) fn backward(self) {
        let Self { policy, all, queries, mut inputs, hidden_BQD } = self;
        // No gradient is needed below the lowest block that is trained.
        let Some(lowest) = policy.weights.lowest_trained() else { return };
        let has_embedding = policy.weights.wte_VxD.requires_grad();
        let mut gradient = hidden_BQD.grad();
        drop(hidden_BQD);
        while let Some(input_BLD) = inputs.pop() {
            let n = inputs.len();
            if n < lowest {
                return;
            }
            let is_asked = n > lowest || has_embedding;
            let input_BLD = input_BLD.detach().set_requires_grad(is_asked);
            let output = policy.segment(n, &input_BLD, &queries, &all);
            push_back(&output, &gradient);
            gradient = input_BLD.grad();
        }
        if has_embedding {
            push_back(&policy.embed(&all), &gradient);
        }
    }
}

/// Runs backward from `output` as if its gradient had been handed over.
fn push_back(output: &Tensor, gradient: &Tensor) {
    (output * gradient).sum(output.kind()).backward();
}

#[cfg(test)]
mod tests;
