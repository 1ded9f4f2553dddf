//! What a worker counts, by name: the one list of metrics, and one function for each thing that happens.
//!
//! Names are Prometheus', in base units. The program decides whether a recorder is installed; without
//! one every call here does nothing. No metric reaches a result, and no label holds a secret or
//! the digest of a run, a stage or a blob: a label's values are few.

use agrpo_spec::{Numerics, Phases, StageKind};

use agrpo_store::Versions;
use agrpo_store::metrics::{self, counter, gauge};
pub use agrpo_store::metrics::{Kind, Metric};

/// Seconds: from a small stage on a processor to an hour's rollout of a large one.
const SECONDS: Kind = Kind::Histogram(&[
    0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3600.0,
]);

const WORKER: &str = "agrpo_worker_info";
const QUEUE: &str = "agrpo_queue_stages";
const STAGES: &str = "agrpo_stages_total";
const PHASES: &str = "agrpo_stage_phase_seconds";
const IN_HAND: &str = "agrpo_stages_in_hand";
const STARTED: &str = "agrpo_stage_started_timestamp_seconds";
const RETRIES: &str = "agrpo_stage_retries_total";
const LEASES: &str = "agrpo_lease_losses_total";
const RECONNECTS: &str = "agrpo_redis_reconnects_total";
const HEARTBEAT: &str = "agrpo_heartbeat_timestamp_seconds";

/// Every metric there is, in the order of the documentation.
pub const ALL: &[Metric] = &[
    gauge(
        WORKER,
        &["worker", "version", "numerics", "versions"],
        "Always 1; its labels say who this process is, and which stage versions it computes.",
    ),
    gauge(
        QUEUE,
        &["numerics", "versions"],
        "Stages that wait in Redis for a worker, by numerics class, for this worker's stage versions: workers of the \
         same versions report the same.",
    ),
    counter(
        STAGES,
        &["kind", "outcome"],
        "Stages that this process dealt with, by how it ended: finished, reused, failed, given-up or \
         rewound.",
    ),
    Metric {
        name: PHASES,
        kind: SECONDS,
        labels: &["kind", "phase"],
        help: "Seconds of a computed stage, by phase: fetch, compute or store.",
    },
    gauge(IN_HAND, &[], "Stages that this process is at work on."),
    gauge(
        STARTED,
        &[],
        "Unix time at which the newest stage in hand was begun; 0 before the first one.",
    ),
    counter(RETRIES, &["kind"], "Starts of a stage after its first one."),
    metrics::CACHE,
    metrics::READ,
    metrics::WRITTEN,
    counter(LEASES, &[], "Leases of a stage that were lost to another worker."),
    counter(RECONNECTS, &[], "Times that a lost Redis was reached again."),
    gauge(HEARTBEAT, &[], "Unix time of the heartbeat's last turn, whether Redis answered or not."),
];

/// How a stage ended for this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Computed and published.
    Finished,
    /// Its result was there already.
    Reused,
    /// An attempt failed; another one follows.
    Failed,
    /// Failed for good, with a failure record.
    GivenUp,
    /// Computed again because its result was lost or corrupt.
    Repair,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Finished, Self::Reused, Self::Failed, Self::GivenUp, Self::Repair];

    /// The label's value.
    pub fn label(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Reused => "reused",
            Self::Failed => "failed",
            Self::GivenUp => "given-up",
            Self::Repair => "rewound",
        }
    }
}

/// Describes every metric and sets to 0 what only counts, so that a rate is known from the first
/// event on. To be called once, after the recorder is there.
pub fn begin(worker: &str, version: &str, numerics: Numerics) {
    for Metric { name, kind, help, .. } in ALL.iter().copied() {
        match kind {
            Kind::Counter => ::metrics::describe_counter!(name, help),
            Kind::Gauge => ::metrics::describe_gauge!(name, help),
            Kind::Histogram(_) => ::metrics::describe_histogram!(name, help),
        }
    }
    let who = [
        ("worker", worker.to_owned()),
        ("version", version.to_owned()),
        ("numerics", numerics.to_string()),
        ("versions", Versions::own().tag()),
    ];
    ::metrics::gauge!(WORKER, &who).set(1.0);
    for kind in StageKind::ALL {
        for outcome in Outcome::ALL {
            count_stage(kind, outcome, 0);
        }
        ::metrics::counter!(RETRIES, "kind" => kind.to_string()).increment(0);
    }
    metrics::begin();
    for name in [LEASES, RECONNECTS] {
        ::metrics::counter!(name).increment(0);
    }
    for name in [IN_HAND, STARTED, HEARTBEAT] {
        ::metrics::gauge!(name).set(0.0);
    }
}

/// Stages that wait for a worker of a class and of this program's versions.
pub fn queue_depth(numerics: Numerics, stages: u64) {
    let versions = Versions::own().tag();
    ::metrics::gauge!(QUEUE, "numerics" => numerics.to_string(), "versions" => versions)
        .set(number(stages));
}

/// A stage is in hand until what this returns is dropped, whatever its end.
pub(crate) fn stage_begun(unix_ms: u64) -> InHand {
    ::metrics::gauge!(STARTED).set(number(unix_ms) / 1e3);
    ::metrics::gauge!(IN_HAND).increment(1.0);
    InHand(())
}

#[derive(Debug)]
#[must_use = "the stage counts as in hand until this is dropped"]
pub(crate) struct InHand(());

impl Drop for InHand {
    fn drop(&mut self) {
        ::metrics::gauge!(IN_HAND).decrement(1.0);
    }
}

/// A stage was computed and published.
pub(crate) fn stage_finished(kind: StageKind, phases: &Phases) {
    count_stage(kind, Outcome::Finished, 1);
    for (phase, ms) in
        [("fetch", phases.fetch_ms), ("compute", phases.compute_ms), ("store", phases.store_ms)]
    {
        ::metrics::histogram!(PHASES, "kind" => kind.to_string(), "phase" => phase)
            .record(ms / 1e3);
    }
}

/// Stages ended in this way.
pub(crate) fn count_stage(kind: StageKind, outcome: Outcome, by: u64) {
    ::metrics::counter!(STAGES, "kind" => kind.to_string(), "outcome" => outcome.label())
        .increment(by);
}

/// A stage is begun for the `attempt`th time, counted from 1; the first one is no retry.
pub(crate) fn attempt(kind: StageKind, attempt: u32) {
    if attempt > 1 {
        ::metrics::counter!(RETRIES, "kind" => kind.to_string()).increment(1);
    }
}

/// Another worker holds a lease that was ours.
pub(crate) fn lease_lost() {
    ::metrics::counter!(LEASES).increment(1);
}

/// Redis answers again after it was lost.
pub(crate) fn redis_reconnected() {
    ::metrics::counter!(RECONNECTS).increment(1);
}

/// The heartbeat had its turn.
pub(crate) fn heartbeat(unix_ms: u64) {
    ::metrics::gauge!(HEARTBEAT).set(number(unix_ms) / 1e3);
}

/// Prometheus knows floating point only: whole numbers are exact to 2^53.
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_prometheus() {
        let mut names: Vec<_> = ALL.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
        for Metric { name, kind, help, .. } in ALL {
            let is_of_name = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(name.starts_with("agrpo_") && name.chars().all(is_of_name));
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            assert!(help.ends_with('.') && !help.contains('\n') && !help.contains('|'), "{name}");
        }
    }
}
