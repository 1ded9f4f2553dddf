//! The store's metrics: blobs looked up in caches, and bytes read and written.
//!
//! Names follow Prometheus' rules, in base units; without a recorder every call here does nothing. No label holds a
//! secret or a digest. The workers' metrics, and the list of all, are in the fleet.

/// The kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only grows, from 0 at the start of the process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations counted in buckets, in the metric's unit.
    Histogram(&'static [f64]),
}

/// The names of a metric's labels.
type Labels = &'static [&'static str];

/// One metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    /// Its name, unit and `_total` included.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: Labels,
    /// One sentence for people.
    pub help: &'static str,
}

/// Blobs looked up in the caches of this machine.
pub const CACHE: Metric = counter(
    "agrpo_blob_cache_requests_total",
    &["tier", "result"],
    "Blobs looked up in a cache of this machine, by tier (memory or disk) and result (hit or miss).",
);
/// Bytes read.
pub const READ: Metric =
    counter("agrpo_store_read_bytes_total", &[], "Bytes of blobs read from the store.");
/// Bytes written.
pub const WRITTEN: Metric =
    counter("agrpo_store_written_bytes_total", &[], "Bytes of blobs written to the store.");

/// A gauge.
pub const fn gauge(name: &'static str, labels: Labels, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, labels, help }
}

/// A counter.
pub const fn counter(name: &'static str, labels: Labels, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, labels, help }
}

/// The caches of this machine: of this process, and of the host.
pub(crate) const MEMORY: &str = "memory";
pub(crate) const DISK: &str = "disk";

/// Initialises the counters to 0, so that Prometheus knows a rate from the first event on.
pub fn begin() {
    for tier in [MEMORY, DISK] {
        count_lookups(tier, true, 0);
        count_lookups(tier, false, 0);
    }
    count(READ, 0);
    count(WRITTEN, 0);
}

/// Counts blobs that were looked up in a cache.
pub(crate) fn count_lookups(tier: &'static str, is_hit: bool, blobs: u64) {
    let result = if is_hit { "hit" } else { "miss" };
    ::metrics::counter!(CACHE.name, "tier" => tier, "result" => result).increment(blobs);
}

/// Counts bytes of blobs that were read from the store or written to it.
pub(crate) fn count(metric: Metric, bytes: u64) {
    ::metrics::counter!(metric.name).increment(bytes);
}
