//! Policy-gradient estimators, one file each: from (policy, trajectories, advantages, timesteps) to
//! passes, whose losses' gradients sum to the estimate. Nothing is drawn in them.

pub mod agrpo;
pub mod timesteps;
