//! The sampler: from prompts to trajectories, block by block and step by step.
//!
//! Every random decision is a uniform number named by (run seed, iteration, prompt, sample, step,
//! position), so a completion is the same in any batch. No key-value cache, no remasking.

mod choice;
mod decode;

pub use decode::{Row, sample};
