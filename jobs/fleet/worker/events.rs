//! What a worker says of its stages and runs: to its owner, to the log, and to the metrics.
//!
//! Logged where it happens, within the span of its stage, so that run, stage, key and attempt need no repeating.

use std::sync::Arc;

use agrpo_spec::{Manifest, RunId, StageDigest, StageKey};

use crate::metrics::{self, Outcome};

/// What a worker tells its owner.
#[derive(Clone, Debug)]
pub enum WorkerEvent {
    /// It computes a stage.
    Started {
        /// The run that asked for it.
        run: RunId,
        /// Its place in the run.
        key: StageKey,
        /// Its name.
        stage: StageDigest,
    },
    /// It computed a stage; the result is published.
    Finished {
        /// The run that asked for it.
        run: RunId,
        /// Its place in the run.
        key: StageKey,
        /// The result.
        manifest: Arc<Manifest>,
    },
    /// Another worker's result of the stage was found instead.
    Reused {
        /// The run that asked for it.
        run: RunId,
        /// Its place in the run.
        key: StageKey,
        /// The result.
        manifest: Arc<Manifest>,
    },
    /// An attempt at a stage failed.
    Failed {
        /// The run that asked for it.
        run: RunId,
        /// Its place in the run.
        key: StageKey,
        /// Its name.
        stage: StageDigest,
        /// Why, in one line.
        error: String,
        /// How often it was begun so far.
        attempts: u32,
        /// Whether it is given up.
        given_up: bool,
    },
    /// A run cannot be looked at: its records in the store are damaged.
    Unreadable {
        /// The run.
        run: RunId,
        /// Why, in one line.
        error: String,
    },
    /// A run is left to other workers: it asks for another program or another class of numerics. Said
    /// once a run.
    Incompatible {
        /// The run.
        run: RunId,
        /// Why, in one line.
        why: String,
    },
    /// A run has no stage left to compute.
    Done {
        /// The run.
        run: RunId,
    },
}

impl WorkerEvent {
    /// Logs the event in the present span, and counts it.
    pub(super) fn note(&self) {
        match self {
            Self::Started { .. } => tracing::debug!("started"),
            Self::Finished { key, manifest, .. } => {
                let phases = &manifest.phases;
                metrics::stage_finished(key.kind, phases);
                tracing::info!(
                    fetch_ms = rounded(phases.fetch_ms),
                    compute_ms = rounded(phases.compute_ms),
                    store_ms = rounded(phases.store_ms),
                    "finished"
                );
            }
            Self::Reused { key, manifest, .. } => {
                metrics::stage_ended(key.kind, Outcome::Reused);
                tracing::info!("already computed by {}", manifest.environment.worker);
            }
            Self::Failed { key, error, attempts, given_up, .. } => {
                let outcome = if *given_up { Outcome::GivenUp } else { Outcome::Failed };
                metrics::stage_ended(key.kind, outcome);
                tracing::error!(attempts, given_up, "{error}");
            }
            Self::Unreadable { run, error } => tracing::error!(%run, "{error}"),
            Self::Incompatible { run, why } => {
                tracing::warn!(%run, "left to other workers: {why}");
            }
            Self::Done { run } => tracing::info!(%run, "run is done"),
        }
    }
}

/// A tenth of a millisecond is enough for people.
fn rounded(ms: f64) -> f64 {
    (ms * 10.0).round() / 10.0
}
