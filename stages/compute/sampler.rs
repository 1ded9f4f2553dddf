//! The sampler: from prompts to trajectories, block by block and step by step.
//!
//! Every random decision is a uniform number named by (run seed, iteration, prompt, sample, step,
//! position), so a completion is the same in any batch. Exact by default; a cache or a threshold
//! (`Sampler`) makes it faster and less exact. No remasking.

mod choice;
mod decode;
mod device;
mod kept;
mod passes;
mod ranking;
mod step;

pub use choice::choose;
pub use decode::{Row, sample};
pub use kept::kept_tokens;
pub use ranking::{Drawn, Ranked, rank};
