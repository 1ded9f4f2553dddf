//! Any record by its name: whether it can be read, and whether its bytes are sealed by a digest. Changes nothing.

use agrpo_spec::{Manifest, Retention, Run, RunId, StageDigest, StageSpec};

use super::json::{Record, Records};
use super::{Control, DroppedOutputs, Failure, Repair, Versions};
use crate::Result;

impl Records {
    /// Reads the record of this name. False: its bytes carry no digest; `None`: it is missing, or no record.
    pub async fn inspect(&self, name: &str) -> Result<Option<bool>> {
        let parts: Vec<&str> = name.split('/').collect();
        match parts[..] {
            ["stages", stage] if stage.parse::<StageDigest>().is_ok() => {
                self.is_sealed::<Manifest>(name).await
            }
            ["specs", stage] if stage.parse::<StageDigest>().is_ok() => {
                self.is_sealed::<StageSpec>(name).await
            }
            ["runs", run, "run.json"] if run.parse::<RunId>().is_ok() => {
                self.is_sealed::<Run>(name).await
            }
            ["runs", _, "versions.json"] => self.is_sealed::<Versions>(name).await,
            ["runs", _, "control.json"] => self.is_sealed::<Control>(name).await,
            ["runs", _, "retention.json"] => self.is_sealed::<Retention>(name).await,
            ["runs", _, "failures", _] => self.is_sealed::<Failure>(name).await,
            ["runs", _, "dropped", _] => self.is_sealed::<DroppedOutputs>(name).await,
            ["runs", _, "rewound", _] => self.is_sealed::<Repair>(name).await,
            ["runs", run, "policies", file] => {
                let Ok(run) = run.parse() else { return Ok(None) };
                // Those from before they were sealed are written anew, so they are not counted.
                Ok(self.noted_stage(run, file, name).await?.map(|_| true))
            }
            _ => Ok(None),
        }
    }

    async fn is_sealed<T: Record>(&self, name: &str) -> Result<Option<bool>> {
        Ok(self.find::<T>(name).await?.map(|found| found.is_sealed))
    }
}
