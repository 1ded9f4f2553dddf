//! Options that several verbs share. Resolves no default that depends on the environment: `settings.rs` does.

use std::{net::SocketAddr, path::PathBuf};

use agrpo_compute::Device;
use clap::{Args, value_parser};

/// Seconds that a service may be unavailable, for every verb that computes.
pub(crate) const RETRY_SECONDS: u64 = 300;

/// The device.
#[derive(Debug, Args)]
pub(crate) struct DeviceArgs {
    /// What computes: cpu, or cuda:N for the GPU number N
    #[arg(long = "device", value_name = "DEVICE", default_value_t = Device::Cpu)]
    pub(crate) id: Device,
}

/// The device, and how many stages it computes side by side.
#[derive(Debug, Args)]
pub(crate) struct ComputeArgs {
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// Stages computed at the same time, one thread each [default: number of cores, or 1 on a GPU]
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(1..=4096))]
    pub(crate) workers: Option<u16>,
}

/// Where results are kept.
#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    /// Folder, file:///path or s3://bucket/prefix that keeps all results [default: $AGRPO_STORE,
    /// else .agrpo]
    #[arg(long, value_name = "URL")]
    pub(crate) store: Option<String>,
}

/// Where a bucket's blobs are kept on this host.
#[derive(Debug, Args)]
pub(crate) struct CacheArgs {
    /// Folder for blobs of a bucket, which all workers of this host may share [default:
    /// $AGRPO_CACHE_DIR, else below $XDG_CACHE_HOME or ~/.cache]
    #[arg(long, value_name = "DIR")]
    pub(crate) cache: Option<PathBuf>,
    /// Most bytes in that folder, as in 50GiB; 0 keeps none [default: $AGRPO_CACHE_SIZE, else a
    /// quarter of what the disk spares, up to 64GiB]
    #[arg(long, value_name = "BYTES", value_parser = crate::settings::bytes)]
    pub(crate) cache_size: Option<u64>,
}

/// Where a fleet keeps results, and where it queues hints about work.
#[derive(Debug, Args)]
pub(crate) struct FleetArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// Redis server that workers share [default: $AGRPO_REDIS, else redis://127.0.0.1:6379]
    #[arg(long, value_name = "URL")]
    pub(crate) redis: Option<String>,
}

/// Where metrics are served.
#[derive(Debug, Args)]
pub(crate) struct MetricsArgs {
    /// Serve Prometheus metrics on ADDR, without authentication, as in 127.0.0.1:9180; loopback is best
    /// [default: $AGRPO_METRICS, else off]
    #[arg(long, value_name = "ADDR")]
    pub(crate) metrics: Option<SocketAddr>,
}

/// The form of the answer.
#[derive(Debug, Args)]
pub(crate) struct JsonArgs {
    /// Answer in JSON
    #[arg(long)]
    pub(crate) json: bool,
}
