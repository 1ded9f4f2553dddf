//! Serves Prometheus metrics over HTTP: any path gives them, `/health` answers OK. Off unless an address is given.
//! Without authentication or TLS, so the address should be on loopback, or in a network that only the monitoring can
//! reach; pages from other sites cannot read them through a browser. What is counted is in `agrpo_fleet::metrics`, and
//! how it is served in `agrpo_view::listener`.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use agrpo_fleet::{Fleet, metrics};
use agrpo_spec::Numerics;
use agrpo_view::{guard::Guard, listener};
use axum::{Router, http::header, routing::get};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};
use tokio::{net::TcpListener, task::JoinSet};

use crate::exit::{Failure, cannot};
use crate::machine::{self, VERSION};
use crate::settings::Settings;

/// Between two reads of the queues' lengths.
const INTERVAL: Duration = Duration::from_secs(2);
/// Between two sortings of observations into their buckets.
const UPKEEP: Duration = Duration::from_secs(5);
/// The text format of Prometheus.
const TEXT: [(header::HeaderName, &str); 1] =
    [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];

/// Listens until dropped.
#[derive(Debug)]
pub(crate) struct Metrics(JoinSet<()>);

impl Metrics {
    /// Listens and begins to count; does nothing without an address. Unavailable if it cannot be bound.
    pub(crate) async fn listen(
        flag: Option<SocketAddr>,
        settings: &Settings,
        worker: &str,
        class: Numerics,
    ) -> Result<Self, Failure> {
        let mut tasks = JoinSet::new();
        let Some(address) = settings.metrics(flag)? else { return Ok(Self(tasks)) };
        let refuse = |error: &dyn std::fmt::Display| {
            Failure::unavailable(format!("--metrics {address}: {error}")).hint(
                "another worker of this machine may have it: give each one an address of its own",
            )
        };
        let socket = TcpListener::bind(address).await.map_err(|error| refuse(&error))?;
        let recorder = builder().map_err(|error| refuse(&error))?.build_recorder();
        let handle = recorder.handle();
        ::metrics::set_global_recorder(recorder).map_err(cannot("count metrics"))?;
        metrics::begin(worker, VERSION, class);
        let names = machine::names().into_iter().chain(settings.metrics_hosts());
        let rendered = handle.clone();
        let all = get(move || std::future::ready((TEXT, rendered.render())));
        let pages = Router::new().route("/health", get(|| std::future::ready("OK")));
        let app = Guard::by_name(address, names).protect(pages.fallback_service(all));
        let limits = machine::listener_limits();
        tasks.spawn(async move { match listener::serve(socket, app, limits).await {} });
        tasks.spawn(async move {
            loop {
                tokio::time::sleep(UPKEEP).await;
                handle.run_upkeep();
            }
        });
        tracing::info!(%address, "serving metrics");
        Ok(Self(tasks))
    }

    /// Reads the queues' lengths at intervals.
    pub(crate) fn watch(&mut self, fleet: Fleet, class: Numerics) {
        if self.0.is_empty() {
            return;
        }
        self.0.spawn(async move {
            let classes = BTreeSet::from([class, Numerics::CpuPortable]);
            loop {
                for &class in &classes {
                    match fleet.waiting(class).await {
                        Ok(stages) => metrics::queue_depth(class, stages),
                        Err(error) => {
                            tracing::debug!(%error, "the length of the queue was not read");
                        }
                    }
                }
                tokio::time::sleep(INTERVAL).await;
            }
        });
    }
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    metrics::ALL.iter().try_fold(PrometheusBuilder::new(), |builder, metric| match metric.kind {
        metrics::Kind::Histogram(buckets) => {
            builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)
        }
        _ => Ok(builder),
    })
}
