//! What happens to stages and runs: for the owner of a run or a worker, for the log, and for the metrics.
//!
//! A worker logs each event within the span of its stage, so that run, stage, key and attempt need no repeating.

use std::sync::Arc;

use agrpo_spec::{Manifest, RunId, StageDigest, StageKey};
use agrpo_store::{Failure, Hold};

use crate::metrics::{self, Outcome};

/// What happens while stages are computed, in one process or by a worker.
#[derive(Clone, Debug)]
pub enum Event {
    /// A process opened its run; its first event.
    Opened {
        /// Stages that need no look any more, as a later update is stored.
        done: u64,
        /// All stages of the run.
        total: u64,
    },
    /// A process began no further stage of its run, as it is paused or cancelled.
    Held {
        /// How.
        state: Hold,
        /// Who, as they call themselves.
        by: String,
    },
    /// The run of a process was resumed.
    Resumed,
    /// A stage is being computed.
    Started {
        /// The run that asked for it.
        run: RunId,
        /// Its place in the run.
        key: StageKey,
        /// Its name.
        stage: StageDigest,
    },
    /// A stage has a result in the store.
    Settled {
        /// The run that asked for it.
        run: RunId,
        /// Its place in the run.
        key: StageKey,
        /// The result.
        manifest: Arc<Manifest>,
        /// Whether it was found there, and not computed here.
        is_reused: bool,
    },
    /// An attempt of a worker at a stage failed.
    Failed {
        /// The run that asked for it.
        run: RunId,
        /// What went wrong.
        failure: Box<Failure>,
        /// Whether the stage is given up.
        is_given_up: bool,
    },
    /// A worker cannot read a run: its records in the store are damaged.
    Unreadable {
        /// The run.
        run: RunId,
        /// Why, in one line.
        error: String,
    },
    /// A worker leaves a run to others: it asks for another program or another class of numerics. Emitted once
    /// for each run.
    Incompatible {
        /// The run.
        run: RunId,
        /// Why, in one line.
        why: String,
    },
    /// A run of a fleet has no stage left to compute.
    Done {
        /// The run.
        run: RunId,
    },
}

impl Event {
    /// Counts the event.
    pub(crate) fn count(&self) {
        match self {
            Self::Settled { key, manifest, is_reused: false, .. } => {
                metrics::stage_finished(key.kind, &manifest.phases);
            }
            Self::Settled { key, .. } => metrics::count_stage(key.kind, Outcome::Reused, 1),
            Self::Failed { failure, is_given_up, .. } => {
                let outcome = if *is_given_up { Outcome::GivenUp } else { Outcome::Failed };
                metrics::count_stage(failure.key.kind, outcome, 1);
            }
            _ => {}
        }
    }

    /// Logs the event in the present span.
    pub(crate) fn log(&self) {
        match self {
            Self::Opened { .. } | Self::Held { .. } | Self::Resumed => {}
            Self::Started { .. } => tracing::debug!("started"),
            Self::Settled { manifest, is_reused: false, .. } => {
                let phases = &manifest.phases;
                tracing::info!(
                    fetch_ms = rounded(phases.fetch_ms),
                    compute_ms = rounded(phases.compute_ms),
                    store_ms = rounded(phases.store_ms),
                    "finished"
                );
            }
            Self::Settled { manifest, .. } => {
                tracing::info!("already computed by {}", manifest.environment.worker);
            }
            Self::Failed { failure, is_given_up, .. } => {
                let attempts = failure.attempts;
                tracing::error!(attempts, given_up = is_given_up, "{}", failure.error);
            }
            Self::Unreadable { run, error } => tracing::error!(%run, "{error}"),
            Self::Incompatible { run, why } => {
                tracing::warn!(%run, "this worker leaves the run to others: {why}");
            }
            Self::Done { run } => tracing::info!(%run, "run is done"),
        }
    }
}

/// A tenth of a millisecond is enough for people.
fn rounded(ms: f64) -> f64 {
    (ms * 10.0).round() / 10.0
}
