//! The time of day as an argument.
//!
//! Nothing in this crate asks the machine what time it is: `src/` hands in the clock, and tests hand
//! in one that they move themselves. Durations are measured with monotonic instants instead.

use std::sync::Arc;

/// Gives the milliseconds since 1970.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;
