//! The seven stages, each a pure function of its spec and its inputs, on libtorch.
//!
//! ```text
//! sft         masked-diffusion fine-tuning on the task's solutions     -> policy, optimizer
//! rollout     a shard of prompts, a group of completions each          -> trajectories
//! reward      grades and advantages                                    -> rewards
//! gradient    the Monte Carlo policy gradient of the shard             -> gradient
//! update      clip and AdamW over the mean of all shards               -> policy, optimizer
//! updates     all gradients and updates of an iteration as one stage       -> policy, optimizer
//! evaluation  greedy accuracy on held-out problems                     -> evaluation
//! ```
//!
//! A stage opens no file, prints nothing and reads no clock; it draws randomness only from the seed in its
//! spec. Equal inputs give equal bytes as far as the spec's numerics class promises (every x86-64 processor with AVX2
//! and FMA, or GPUs of one model), in a process with that class's settings and one intra-op thread.

// Tensors wear their shape: logits_BLV is logits of B x L x V.
#![expect(non_snake_case, reason = "shape letters at the end of tensor names are capitals")]

mod blocks;
mod context;
mod dedup;
mod device;
mod error;
pub mod estimator;
mod evaluation;
mod execute;
mod folder;
pub mod fuzz_entry_points;
mod gradient;
mod kernels;
pub mod model;
mod optimizer;
mod policy_cache;
mod problems;
mod reward;
mod rollout;
pub mod sampler;
mod sft;
mod shard;
pub mod tasks;
mod tensors;
#[cfg(test)]
mod testing;
pub mod text;
mod threads;
mod update;
mod updates;

pub use agrpo_spec::trajectories;
pub use context::Resources;
pub use device::{
    Device, ParseDeviceError, gpus, libtorch_version, use_deterministic_algorithms, use_one_thread,
    without_stack,
};
pub use execute::{execute, execute_on, execute_with};
pub use kernels::missing_instructions;
pub use kernels::phases;
pub use problems::{RowGrader, check_run, prompt_tokens, vocabulary};
pub use shard::Shard;
pub use text::chat::check_folder;
pub use threads::Threads;
