//! The records of paused and cancelled runs.
//!
//! A run without one was never paused or cancelled. They decide when stages run, never what they compute.

use agrpo_spec::RunId;
use serde::{Deserialize, Serialize};

use super::json::{Fields, Readable, Records};
use crate::{Result, paths};

/// Whether a run is paused or cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hold {
    /// Until it is resumed.
    Paused,
    /// For good, unless the run is enqueued again.
    Cancelled,
}

impl std::fmt::Display for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Paused => "paused",
            Self::Cancelled => "cancelled",
        })
    }
}

/// Who paused or cancelled a run, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Control {
    /// Whether it is paused or cancelled.
    pub state: Hold,
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
    /// By whom, for people.
    pub by: String,
}

impl Fields for Control {
    const REMEDY: &'static str = "delete it, or pause or resume the run again";
}

impl Records {
    /// Pauses or cancels a run; the last call counts.
    pub async fn put_control(&self, run: RunId, control: &Control) -> Result<()> {
        self.put(&paths::of_run(run, "control.json"), control).await
    }

    /// Removes a run's record, so that it goes on.
    pub async fn clear_control(&self, run: RunId) -> Result<()> {
        self.delete::<Control>(&paths::of_run(run, "control.json")).await
    }

    /// The record of a paused or cancelled run. Data error if it is corrupt.
    pub async fn control(&self, run: RunId) -> Result<Option<Control>> {
        self.get(&paths::of_run(run, "control.json")).await
    }

    /// The same, with the record beside it if it cannot be read.
    pub async fn readable_control(&self, run: RunId) -> Readable<Control> {
        self.readable(paths::of_run(run, "control.json")).await
    }
}
