//! The formats of stage results that other programs read: defined here once, for writers and readers.
//!
//! Weights, gradients and the optimizer's state are tensors that only stages read, and are not here.

use std::collections::BTreeMap;

mod evaluation_shards;
mod evaluations;
pub mod metrics;
pub mod trajectories;

pub use evaluation_shards::{EvaluationShards, Partial, Together};
pub use evaluations::{Evaluation, EvaluationResult, EvaluationSample, Points};

/// The reward of a completion.
#[derive(Clone, Debug, PartialEq, bincode::Encode, bincode::Decode)]
pub struct RowReward {
    /// Weighted sum of the parts.
    pub reward: f64,
    /// Whether the answer is right.
    pub correct: bool,
    /// The reward's parts, by name.
    pub parts: BTreeMap<String, f64>,
    /// The advantage over the completion's group.
    pub advantage: f64,
    /// Whether the gradient's mean counts the completion.
    pub counted: bool,
}

/// The rewards of all rows of a trajectories file, in its order, in canonical bincode.
#[derive(Clone, Debug, PartialEq, bincode::Encode, bincode::Decode)]
pub struct Rewards {
    /// One for each row.
    pub rows: Vec<RowReward>,
}
