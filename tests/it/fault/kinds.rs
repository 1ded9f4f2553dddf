//! The kinds of faults, and how they are printed. What each of them does is in `strike.rs`.

use std::fmt;

use super::proxy::Trouble;
use super::tampered::Unfit;

/// What goes wrong. Workers are counted from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// SIGKILL; `computing`: once the worker computes a stage.
    Kill { worker: usize, computing: bool },
    /// The worker's first process has this fail point; the moment is ignored.
    Arm { worker: usize, point: String },
    /// SIGSTOP, later SIGCONT.
    Stop { worker: usize, ms: u64 },
    /// This worker's clock is wrong by so many hours, all the time.
    Clock { worker: usize, hours: i8 },
    /// SIGKILL of Redis, which comes back after a while.
    RedisKill { ms: u64 },
    /// The clock of Redis goes so many hours ahead or back, and is right again after a while.
    RedisClock { hours: i8, ms: u64 },
    /// Redis answers and cannot serve.
    RedisUnfit { how: Unfit },
    /// FLUSHALL.
    Flush,
    /// Redis does not answer for a while.
    RedisStall { ms: u64 },
    /// One worker is cut off from Redis for a while.
    RedisCut { worker: usize, ms: u64 },
    /// A share of the requests to S3 goes wrong for a while.
    S3 { trouble: Trouble, percent: u64, ms: u64 },
    /// SIGKILL of SeaweedFS, which is started again after a while.
    S3Kill { ms: u64 },
    /// A result of the stage that ended last is deleted. `cold`: one that the next update needs, and all
    /// workers are killed with it and their host's cache loses it, so that no copy is left.
    Delete { cold: bool },
    /// A bit of such a result is turned.
    Flip { cold: bool },
    /// The index of the run names another stage in the newest update's place.
    Index,
    /// A newer program has written the newest update's record, for a while.
    Newer { ms: u64 },
    /// There are FIFOs among blobs and manifests.
    Fifos,
    /// So many idle connections to the metrics of a worker that may open 256 files.
    Idle { worker: usize, connections: usize },
    /// A stage that has been computed for so long is given to another worker as well: its hint and its lease are
    /// deleted, and the run is enqueued again.
    SameStage { ms: u64 },
}

impl Fault {
    pub(super) fn lasting_ms(&self) -> u64 {
        match self {
            Self::Stop { ms, .. }
            | Self::RedisKill { ms }
            | Self::RedisClock { ms, .. }
            | Self::RedisStall { ms }
            | Self::RedisCut { ms, .. }
            | Self::Newer { ms }
            | Self::S3 { ms, .. } => *ms,
            Self::S3Kill { ms } => ms + 24_000,
            _ => 0,
        }
    }

    /// What kind of fault it is, for summaries.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Kill { .. } => "kill",
            Self::Arm { .. } => "kill-at",
            Self::Stop { .. } => "stop",
            Self::Clock { .. } => "clock",
            Self::RedisKill { .. } => "redis-kill",
            Self::RedisClock { .. } => "redis-clock",
            Self::Flush => "flushall",
            Self::RedisStall { .. } => "redis-stall",
            Self::RedisCut { .. } => "redis-cut",
            Self::S3 { trouble: Trouble::Errors, .. } => "s3-errors",
            Self::S3 { trouble: Trouble::Latency, .. } => "s3-latency",
            Self::S3 { trouble: Trouble::Reset, .. } => "s3-reset",
            Self::S3 { trouble: Trouble::BadReads, .. } => "s3-bad-reads",
            Self::S3 { trouble: Trouble::Conflict, .. } => "s3-409",
            Self::S3 { trouble: Trouble::NoChecksums, .. } => "s3-no-checksums",
            Self::S3Kill { .. } => "s3-kill",
            Self::Delete { .. } => "delete",
            Self::Flip { .. } => "flip",
            Self::RedisUnfit { how: Unfit::Evicting } => "redis-evicting",
            Self::RedisUnfit { how: Unfit::WrongType } => "redis-foreign",
            Self::Index => "index",
            Self::Newer { .. } => "newer-record",
            Self::Fifos => "fifos",
            Self::Idle { .. } => "idle",
            Self::SameStage { .. } => "same-stage",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind();
        match self {
            Self::Kill { worker, computing: false } => write!(f, "{kind}(w{worker})"),
            Self::Kill { worker, .. } => write!(f, "{kind}(w{worker}, computing)"),
            Self::Arm { worker, point } => write!(f, "{kind}(w{worker}, {point})"),
            Self::Stop { worker, ms } | Self::RedisCut { worker, ms } => {
                write!(f, "{kind}(w{worker}, {ms} ms)")
            }
            Self::Clock { worker, hours } => write!(f, "{kind}(w{worker}, {hours:+} h)"),
            Self::RedisClock { hours, ms } => write!(f, "{kind}({hours:+} h, {ms} ms)"),
            Self::RedisKill { ms }
            | Self::RedisStall { ms }
            | Self::S3Kill { ms }
            | Self::Newer { ms } => write!(f, "{kind}({ms} ms)"),
            Self::Idle { worker, connections } => write!(f, "{kind}(w{worker}, {connections})"),
            Self::S3 { percent, ms, .. } => write!(f, "{kind}({percent} %, {ms} ms)"),
            Self::Delete { cold: true } | Self::Flip { cold: true } => write!(f, "{kind}(cold)"),
            Self::Flush
            | Self::RedisUnfit { .. }
            | Self::Index
            | Self::Fifos
            | Self::Delete { .. }
            | Self::Flip { .. }
            | Self::SameStage { .. } => f.write_str(kind),
        }
    }
}
