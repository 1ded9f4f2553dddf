//! Checks any record by its name: whether it can be read, and whether its bytes are sealed. Changes nothing.

use agrpo_spec::{Manifest, Retention, Run, StageDigest, StageSpec};

use super::json::{Record, Records};
use super::{Control, DroppedOutputs, Failure, Repair, Versions};
use crate::Result;

impl Records {
    /// Reads the record of this name. True: it is sealed; `None`: it is missing, or the name is no record's.
    pub async fn inspect(&self, name: &str) -> Result<Option<bool>> {
        let parts: Vec<&str> = name.split('/').collect();
        let is_named = parts.get(1).is_some_and(|part| part.parse::<StageDigest>().is_ok());
        match parts[..] {
            ["stages", _] if is_named => self.is_sealed::<Manifest>(name).await,
            ["specs", _] if is_named => self.is_sealed::<StageSpec>(name).await,
            ["runs", _, "run.json"] if is_named => self.is_sealed::<Run>(name).await,
            ["runs", _, "versions.json"] => self.is_sealed::<Versions>(name).await,
            ["runs", _, "control.json"] => self.is_sealed::<Control>(name).await,
            ["runs", _, "retention.json"] => self.is_sealed::<Retention>(name).await,
            ["runs", _, "failures", _] => self.is_sealed::<Failure>(name).await,
            ["runs", _, "dropped", _] => self.is_sealed::<DroppedOutputs>(name).await,
            ["runs", _, "rewound", _] => self.is_sealed::<Repair>(name).await,
            ["runs", run, "policies", file] => {
                let Ok(run) = run.parse() else { return Ok(None) };
                // Unsealed notes of old versions are rewritten by workers, so they count as sealed.
                Ok(self.noted_stage(run, file, name).await?.map(|_| true))
            }
            _ => Ok(None),
        }
    }

    async fn is_sealed<T: Record>(&self, name: &str) -> Result<Option<bool>> {
        Ok(self.find::<T>(name).await?.map(|found| found.is_sealed))
    }
}
