//! The record of a finished stage: written last, created once, never changed.
//!
//! `outputs` names every blob that the stage wrote: `NAME` for an artifact, `NAME/FILE` for the
//! files of a folder. `environment` and `phases` say how it was made; they vary from one machine to
//! the next and are no part of the result.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::{ArtifactDigest, StageDigest};
use crate::record::{self, Opened, RecordError};
use crate::{artifact::OutputRecord, stage::StageSpec};

/// Where and with what a stage was computed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Environment {
    /// Version of agrpo, with the commit where known.
    pub agrpo: String,
    /// Version of libtorch.
    pub libtorch: String,
    /// The processor's name.
    pub cpu: String,
    /// The GPU's name and its driver's version, if one computed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu: Option<String>,
    /// The machine's name.
    pub host: String,
    /// Operating system and architecture.
    pub platform: String,
    /// Threads that the stages of the process shared.
    pub threads: u32,
    /// Stages that the process computed at the same time, at most; absent in manifests of earlier releases.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stages_at_once: Option<u32>,
    /// The worker that computed it.
    pub worker: String,
    /// Milliseconds since 1970 when the stage began.
    pub started_unix_ms: u64,
    /// Which attempt at the stage this was, counted from 1; absent in a run of one process, which counts no attempts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
}

/// Milliseconds spent in each phase of a stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Phases {
    /// Reading and verifying inputs.
    pub fetch_ms: f64,
    /// The stage itself.
    pub compute_ms: f64,
    /// Hashing and writing outputs, before the manifest.
    pub store_ms: f64,
}

/// The record of a finished stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The stage's name.
    pub stage: StageDigest,
    /// The stage's spec.
    pub spec: StageSpec,
    /// Every blob that the stage wrote.
    pub outputs: BTreeMap<String, OutputRecord>,
    /// Metrics.
    pub metrics: BTreeMap<String, f64>,
    /// Where it was computed.
    pub environment: Environment,
    /// How long it took.
    pub phases: Phases,
}

impl Manifest {
    /// The manifest's bytes: a sealed record.
    pub fn to_bytes(&self) -> Vec<u8> {
        record::seal(self)
    }

    /// Reads the manifest of `stage`. `Damaged` if its spec has another name.
    pub fn open(stage: StageDigest, bytes: &[u8]) -> Result<Opened<Self>, RecordError> {
        let opened: Opened<Self> = record::open(bytes)?;
        for found in [opened.value.stage, opened.value.spec.digest()] {
            if found != stage {
                let why = format!("it names the stage {stage}, but its spec is that of {found}");
                return Err(RecordError::Damaged(why));
            }
        }
        Ok(opened)
    }

    /// The artifact that the stage wrote under this name.
    pub fn output(&self, name: &str) -> Option<ArtifactDigest> {
        self.outputs.get(name).map(|record| record.digest)
    }
}
