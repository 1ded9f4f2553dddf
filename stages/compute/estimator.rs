//! Policy-gradient estimators, one file each: from trajectories with advantages to units of states and
//! ratios, whose losses' gradients sum to the estimate.
//!
//! A kind decides which states are looked at, what is read off them and with what weight; the rest
//! (ratios, clipping, divergence, passes) is the same code for all. Everything random is a function
//! of the seed. Clips no norm and takes no optimizer step.

mod accumulate;
mod agrpo;
mod ar_grpo;
mod batch;
mod coupled_grpo;
mod diffu_grpo;
mod kinds;
mod merged_step;
mod pass;
mod reads;
mod records;
pub mod timesteps;
mod unit;

#[cfg(test)]
mod tests;

pub use accumulate::{Portion, accumulate};
pub use agrpo::Agrpo;
pub use batch::{Batch, Worth};
pub use kinds::estimator;
pub use pass::{Measured, Pass, Policies};
pub use records::recompute;
pub use unit::{Estimator, Event, Factor, Read, Support, Surrogate, Unit};
