//! Paused and cancelled runs, as the store remembers them.
//!
//! No record for a run that no person held. It decides when stages run, never what comes of them.

use agrpo_spec::RunId;
use serde::{Deserialize, Serialize};

use super::json::{Fields, Records, Unreadable};
use crate::{Result, paths};

/// How a run is held back.
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

/// Who held a run back, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Control {
    /// How it is held back.
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
    /// Holds a run back; the last word counts.
    pub async fn put_control(&self, run: RunId, control: &Control) -> Result<()> {
        self.put(&paths::of_run(run, "control.json"), control).await
    }

    /// Lets a run go on.
    pub async fn clear_control(&self, run: RunId) -> Result<()> {
        self.delete::<Control>(&paths::of_run(run, "control.json")).await
    }

    /// Whether a run is held back. Data error if the record is corrupt.
    pub async fn control(&self, run: RunId) -> Result<Option<Control>> {
        self.get(&paths::of_run(run, "control.json")).await
    }

    /// The same, with the record beside it if it cannot be read.
    pub async fn readable_control(
        &self,
        run: RunId,
    ) -> Result<(Option<Control>, Option<Unreadable>)> {
        self.readable(paths::of_run(run, "control.json")).await
    }
}
