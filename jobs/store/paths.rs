//! The names of a store's objects, built and taken apart here alone. Reads and writes nothing.

use std::fmt::Display;

use agrpo_spec::{ArtifactDigest, RunId, StageDigest, StageKey};

/// The folders of a store.
pub const FOLDERS: [&str; 5] = ["stages", "specs", "cas", "runs", "aside"];
/// The folder of a local store's locks, which hold no data.
pub const LOCKS: &str = "locks";
/// The folders that each run has.
pub const OF_RUNS: [&str; 6] = ["stages", "policies", "failures", "twice", "dropped", "rewound"];

/// A blob.
pub fn blob(digest: ArtifactDigest) -> String {
    format!("cas/{digest}")
}

/// The manifest of a stage.
pub fn manifest(stage: StageDigest) -> String {
    format!("stages/{stage}")
}

/// Where a damaged object is quarantined.
pub(crate) fn quarantined(name: &str) -> String {
    format!("aside/{}", name.replace('/', "-"))
}

/// An object that is written to read the store's clock, and deleted.
pub(crate) const CLOCK: &str = "aside/clock";

/// Such an object for one blob: several processes may read the clock at the same time.
pub(crate) fn clock_of(blob: ArtifactDigest) -> String {
    format!("{CLOCK}-{blob}")
}

/// The objects of one round of `probe.rs`: one that is created twice, and one that is written.
pub(crate) fn probes(unique: &str, round: u32) -> [String; 2] {
    ["probe", "plain"].map(|folder| format!("{folder}/{unique}-{round}"))
}

/// The spec of a stage.
pub fn spec(stage: StageDigest) -> String {
    format!("specs/{stage}")
}

/// The folder of a run, which holds everything but its results.
pub fn run(run: RunId) -> String {
    format!("runs/{run}")
}

/// A run's `run.json`, `versions.json`, `control.json` or `retention.json`, or one of its folders [`OF_RUNS`].
pub fn of_run(run: RunId, file: &str) -> String {
    format!("runs/{run}/{file}")
}

/// The lock of a run in a local store.
pub(crate) fn lock(run: RunId) -> String {
    format!("{LOCKS}/{run}")
}

/// An object in a folder of a run.
pub(crate) fn in_run(run: RunId, folder: &str, file: impl Display) -> String {
    format!("runs/{run}/{folder}/{file}")
}

/// The stage of whose failure this object is the record.
pub(crate) fn failed_stage(name: &str) -> Option<StageDigest> {
    name.split_once("/failures/")?.1.parse().ok()
}

/// Whether this object says whether a run is paused or cancelled.
pub(crate) fn is_control(name: &str) -> bool {
    name.ends_with("/control.json")
}

/// An entry of a run's index.
pub fn indexed(run: RunId, key: StageKey, stage: StageDigest) -> String {
    format!("runs/{run}/stages/{key}.{stage}")
}

/// Takes the file name of an entry of a run's index apart.
pub(crate) fn parse_indexed(file: &str) -> Option<(StageKey, StageDigest)> {
    let (key, stage) = file.split_once('.')?;
    Some((key.parse().ok()?, stage.parse().ok()?))
}
