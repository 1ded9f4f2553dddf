//! Metrics for Prometheus, over HTTP: any path gives them, `/health` only says that somebody listens.
//!
//! Off unless an address is given. No password, no TLS: the address should be on loopback, or in a
//! network that only the monitoring reaches. What is counted is in `agrpo_jobs::metrics`.

use std::net::SocketAddr;
use std::time::Duration;

use agrpo_jobs::{Fleet, metrics};
use agrpo_spec::Numerics;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};
use tokio::task::JoinSet;

use crate::cli::VERSION;
use crate::exit::{Exit, Failure};

/// From one look at the queues to the next.
const LOOK: Duration = Duration::from_secs(2);

/// Listens until dropped.
#[derive(Debug)]
pub(crate) struct Metrics(JoinSet<()>);

impl Metrics {
    /// Listens and begins to count; nothing at all without an address. Unavailable if the address
    /// cannot be had.
    pub(crate) fn listen(
        address: Option<SocketAddr>,
        worker: &str,
        class: Numerics,
    ) -> Result<Self, Failure> {
        let mut tasks = JoinSet::new();
        let Some(address) = address else { return Ok(Self(tasks)) };
        let refuse = |error: &dyn std::fmt::Display| {
            Failure::new(Exit::Unavailable, format!("--metrics {address}: {error}")).hint(
                "another worker of this machine may have it: give each one an address of its own",
            )
        };
        let (recorder, exporter) =
            builder(address).and_then(PrometheusBuilder::build).map_err(|error| match error {
                BuildError::FailedToCreateHTTPListener(error) => refuse(&error),
                error => refuse(&error),
            })?;
        ::metrics::set_global_recorder(recorder)
            .map_err(|error| Failure::new(Exit::Unexpected, error.to_string()))?;
        metrics::begin(worker, VERSION, class);
        tasks.spawn(async move {
            if exporter.await.is_err() {
                tracing::warn!("metrics are no longer told");
            }
        });
        tracing::info!(%address, "telling metrics");
        Ok(Self(tasks))
    }

    /// Looks at the queues now and then.
    pub(crate) fn watch(&mut self, fleet: Fleet, class: Numerics) {
        if self.0.is_empty() {
            return;
        }
        self.0.spawn(async move {
            let others = Numerics::OF_CPU.into_iter().filter(move |other| *other != class);
            let classes: Vec<_> = std::iter::once(class).chain(others).collect();
            loop {
                for &class in &classes {
                    match fleet.waiting(class).await {
                        Ok(stages) => metrics::queue_depth(class, stages),
                        Err(error) => tracing::debug!(%error, "the queue was not looked at"),
                    }
                }
                tokio::time::sleep(LOOK).await;
            }
        });
    }
}

fn builder(address: SocketAddr) -> Result<PrometheusBuilder, BuildError> {
    let builder = PrometheusBuilder::new().with_http_listener(address);
    metrics::ALL.iter().try_fold(builder, |builder, metric| match metric.kind {
        metrics::Kind::Histogram(buckets) => {
            builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)
        }
        _ => Ok(builder),
    })
}
