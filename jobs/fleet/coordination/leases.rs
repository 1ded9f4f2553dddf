//! Leases: who is at work on what, so that the same stage is rarely computed twice.
//!
//! A lease is a key with an expiry and a fencing token that no two leases share; renewing and releasing compare it
//! first. Nothing relies on leases for being right: of two workers that compute the same stage, the store keeps one
//! result.

mod lease;
mod stage_lease;
pub(crate) mod stages;

pub(crate) use lease::{LEASE, Lease, release};
pub(crate) use stage_lease::{Gate, StageLease, State};
