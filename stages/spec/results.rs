//! The formats of stage results that other programs read: defined here once, for writers and readers.
//!
//! Weights, gradients and the optimizer's state are tensors that only stages read, and are not here.

mod evaluations;
mod rewards;
pub mod trajectories;

pub use evaluations::{Evaluation, EvaluationResult, EvaluationSample};
pub use rewards::{Rewards, RowReward};
