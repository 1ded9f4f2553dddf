//! What the store counts: blobs looked up in caches, and bytes that came and went.
//!
//! Names are Prometheus', in base units; without a recorder every call here does nothing. No label holds a secret or a
//! digest. What workers count, and the list of all metrics, is the fleet's.

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only grows, from 0 at the start of the process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations counted in buckets, in the metric's unit.
    Histogram(&'static [f64]),
}

/// One metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    /// Its name, unit and `_total` included.
    pub name: &'static str,
    /// What kind of number it is.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
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
pub const fn gauge(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind: Kind::Gauge, labels, help }
}

/// A counter.
pub const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind: Kind::Counter, labels, help }
}

/// Which cache was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tier {
    /// This process' memory.
    Memory,
    /// The host's disk.
    Disk,
}

impl Tier {
    fn label(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
        }
    }
}

/// Sets to 0 what only counts, so that a rate is known from the first event on.
pub fn begin() {
    for tier in [Tier::Memory, Tier::Disk] {
        for result in ["hit", "miss"] {
            ::metrics::counter!(CACHE.name, "tier" => tier.label(), "result" => result)
                .increment(0);
        }
    }
    for metric in [READ, WRITTEN] {
        ::metrics::counter!(metric.name).increment(0);
    }
}

/// A blob was looked up in a cache.
pub(crate) fn cache_asked(tier: Tier, hit: bool) {
    let result = if hit { "hit" } else { "miss" };
    ::metrics::counter!(CACHE.name, "tier" => tier.label(), "result" => result).increment(1);
}

/// Bytes of blobs came from the store.
pub(crate) fn bytes_read(bytes: u64) {
    ::metrics::counter!(READ.name).increment(bytes);
}

/// Bytes of blobs went to the store.
pub(crate) fn bytes_written(bytes: u64) {
    ::metrics::counter!(WRITTEN.name).increment(bytes);
}
