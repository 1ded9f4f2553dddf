//! Any record by its name: whether it can be read, and whether its bytes are sealed by a digest.
//!
//! The one place that knows which kind of record has which name. Changes nothing.

use agrpo_spec::{Manifest, Retention, record};
use serde::de::DeserializeOwned;

use super::control::Control;
use super::repairs::Repair;
use super::retention::DroppedOutputs;
use super::runs::{self, Failure};
use super::sealed::{Place, REPAIR};
use super::{manifests, specs};
use crate::error::JobsError;
use crate::store::Store;
use crate::versions::Versions;

impl Store {
    /// Reads the record of this name, whichever kind it is. False: it has no digest to check; `None`: it is
    /// not there, or is no record.
    pub async fn inspect(&self, name: &str) -> Result<Option<bool>, JobsError> {
        async fn of<T: DeserializeOwned>(
            store: &Store,
            name: &str,
        ) -> Result<Option<bool>, JobsError> {
            let place = Place { name, remedy: REPAIR };
            let found = store.read_record(place, record::open::<T>).await?;
            Ok(found.map(|record| record.is_sealed))
        }
        let parts: Vec<&str> = name.split('/').collect();
        match parts[..] {
            ["stages", stage] => {
                let Ok(stage) = stage.parse() else { return Ok(None) };
                let open = |bytes: &[u8]| Manifest::open(stage, bytes);
                let found = self.read_record(manifests::place(name), open).await?;
                Ok(found.map(|record| record.is_sealed))
            }
            ["specs", stage] => {
                let Ok(stage) = stage.parse() else { return Ok(None) };
                let open = |bytes: &[u8]| specs::open(stage, bytes);
                let found = self.read_record(specs::place(name), open).await?;
                Ok(found.map(|record| record.is_sealed))
            }
            ["runs", run, "run.json"] => {
                let Ok(run) = run.parse() else { return Ok(None) };
                let open = |bytes: &[u8]| runs::open_run(run, bytes);
                let found = self.read_record(runs::run_place(name), open).await?;
                Ok(found.map(|record| record.is_sealed))
            }
            ["runs", run, "policies", file] => {
                let Ok(run) = run.parse() else { return Ok(None) };
                // Those from before they were sealed are written anew, so they are not counted.
                Ok(self.noted_stage(run, file, name).await?.map(|_| true))
            }
            ["runs", _, "versions.json"] => of::<Versions>(self, name).await,
            ["runs", _, "control.json"] => of::<Control>(self, name).await,
            ["runs", _, "retention.json"] => of::<Retention>(self, name).await,
            ["runs", _, "failures", _] => of::<Failure>(self, name).await,
            ["runs", _, "dropped", _] => of::<DroppedOutputs>(self, name).await,
            ["runs", _, "rewound", _] => of::<Repair>(self, name).await,
            _ => Ok(None),
        }
    }
}
