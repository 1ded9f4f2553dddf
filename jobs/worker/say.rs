//! One log line for each event of a worker, and its place in the metrics, where it happens: within the
//! span of its stage, so that run, stage, key and attempt need no repeating.

use super::WorkerEvent;
use crate::metrics::{self, Outcome};

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
            Self::Foreign { run, why } => {
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
