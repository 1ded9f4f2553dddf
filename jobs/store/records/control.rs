//! Paused and cancelled runs, as the store remembers them.
//!
//! No record for a run that no person held. It decides when stages run, never what comes of them.

use agrpo_spec::RunId;
use serde::{Deserialize, Serialize};

use super::sealed::{Place, Unreadable, sorted};
use crate::error::JobsError;
use crate::store::Store;

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

const REMEDY: &str = "delete it, or pause or resume the run again";

fn name_of(run: RunId) -> String {
    format!("runs/{run}/control.json")
}

impl Store {
    /// Holds a run back; the last word counts.
    pub async fn put_control(&self, run: RunId, control: &Control) -> Result<(), JobsError> {
        self.replace_record(&name_of(run), control).await
    }

    /// Lets a run go on.
    pub async fn clear_control(&self, run: RunId) -> Result<(), JobsError> {
        self.delete_record::<Control>(&name_of(run)).await
    }

    /// Whether a run is held back. Data error if the record is corrupt.
    pub async fn control(&self, run: RunId) -> Result<Option<Control>, JobsError> {
        let name = name_of(run);
        self.record(Place { name: &name, remedy: REMEDY }).await
    }

    /// The same, with the record beside it if it cannot be read.
    pub async fn readable_control(
        &self,
        run: RunId,
    ) -> Result<(Option<Control>, Option<Unreadable>), JobsError> {
        let found = self.each_record(vec![name_of(run)], REMEDY).await?;
        let (mut controls, mut unreadable) = sorted(found);
        Ok((controls.pop(), unreadable.pop()))
    }
}
