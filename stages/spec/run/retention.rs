//! The section `[retention]`: which results a run keeps.
//!
//! Not part of a run's identity: it enters neither the run's id nor any stage's, so runs that differ in it
//! alone share results. Without the section everything is kept. What is deleted can be
//! computed again, to the same bytes, from what is kept.

use std::num::NonZeroU32;

use bincode::{enc::Encoder, error::EncodeError};
use serde::{Deserialize, Serialize};

/// How long a result is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// For good.
    #[default]
    Keep,
    /// Until the update after the one that it served is complete.
    DropAfterUpdate,
}

/// What is kept of a run's results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Keeps policy and optimizer of every so many iterations, the base, the newest two and the last; if absent, of
    /// all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_policies: Option<NonZeroU32>,
    /// How long gradients are kept.
    pub gradients: Keep,
    /// How long trajectories are kept.
    pub trajectories: Keep,
}

/// Nothing is encoded: how long results are kept is no part of a run's identity.
impl bincode::Encode for Retention {
    fn encode<E: Encoder>(&self, _encoder: &mut E) -> Result<(), EncodeError> {
        Ok(())
    }
}

impl Retention {
    /// Whether every result is kept for good.
    pub fn keeps_all(&self) -> bool {
        *self == Self::default()
    }

    /// The retention that keeps least; every other one keeps at least as much.
    pub const LEAST: Self = Self {
        keep_policies: Some(NonZeroU32::MAX),
        gradients: Keep::DropAfterUpdate,
        trajectories: Keep::DropAfterUpdate,
    };
}
