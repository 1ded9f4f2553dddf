//! One log line for each event of a worker, where it happens: within the span of its stage, so that
//! run, stage, key and attempt need no repeating.

use super::WorkerEvent;

impl WorkerEvent {
    /// Logs the event in the present span.
    pub(super) fn log(&self) {
        match self {
            Self::Started { .. } => tracing::debug!("started"),
            Self::Finished { manifest, .. } => tracing::info!(
                fetch_ms = rounded(manifest.phases.fetch_ms),
                compute_ms = rounded(manifest.phases.compute_ms),
                store_ms = rounded(manifest.phases.store_ms),
                "finished"
            ),
            Self::Reused { manifest, .. } => {
                tracing::info!("already computed by {}", manifest.environment.worker);
            }
            Self::Failed { error, attempts, given_up, .. } => {
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
