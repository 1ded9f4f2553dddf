//! Options that several verbs share, and values that options choose from, each with its line of help; names are those
//! of run files wherever a run file has them. Resolves no default that depends on the environment: `settings.rs` does.

use std::{net::SocketAddr, path::PathBuf, str::FromStr};

use agrpo_compute::Device;
use agrpo_spec::{
    Benchmark, Cache, EstimatorKind, Numerics, ParseNumericsError, PositionRule, Protocol,
};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum, value_parser};

/// Seconds that a service may be unavailable, for every verb that computes.
pub(crate) const RETRY_SECONDS: u64 = 300;

#[derive(Debug, Args)]
pub(crate) struct DeviceArgs {
    /// What computes: cpu, or cuda:N for the GPU number N
    #[arg(long = "device", value_name = "DEVICE", default_value_t = Device::Cpu)]
    pub(crate) id: Device,
}

/// How many threads compute.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct ThreadsArgs {
    /// Threads of this process that compute; all its stages share them, and results do not depend on their
    /// number. A GPU takes one [default: number of cores that the process may use]
    #[arg(long = "threads", value_name = "N", value_parser = value_parser!(u16).range(1..=4096))]
    pub(crate) count: Option<u16>,
}

/// The device, its threads, and how many stages share them.
#[derive(Debug, Args)]
pub(crate) struct ComputeArgs {
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    #[command(flatten)]
    pub(crate) threads: ThreadsArgs,
    /// Stages in hand at the same time, which share the threads [default: as many as threads]
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

#[derive(Debug, Args)]
pub(crate) struct MetricsArgs {
    /// Serve Prometheus metrics on ADDR, without authentication, as in 127.0.0.1:9180; loopback is best
    /// [default: $AGRPO_METRICS, else off]
    #[arg(long, value_name = "ADDR")]
    pub(crate) metrics: Option<SocketAddr>,
}

/// What the answer is about, and its form.
#[derive(Debug, Args)]
pub(crate) struct AnswerArgs<Place: Args> {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Answer in JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Names, each with its value and its line of help.
pub(super) type Choices<T> = &'static [(&'static str, T, &'static str)];

/// Reads one of these names.
pub(super) fn choice<T>(all: Choices<T>) -> impl TypedValueParser<Value = T>
where
    T: Copy + Send + Sync + 'static,
{
    let values = all.iter().map(|(name, _, help)| PossibleValue::new(*name).help(*help));
    PossibleValuesParser::new(values).try_map(|name| {
        let chosen = all.iter().find(|(known, ..)| *known == name);
        chosen.map(|(_, value, _)| *value).ok_or("expected one of the possible values")
    })
}

pub(super) fn whole<T: FromStr>(text: &str) -> Result<T, &'static str> {
    text.parse().map_err(|_| "expected a whole number from 0 to 2^63 - 1")
}

/// A numerics class that this release computes in.
pub(super) fn numerics(text: &str) -> Result<Numerics, String> {
    let class: Numerics = text.parse().map_err(|error: ParseNumericsError| error.to_string())?;
    class.is_computed().then_some(class).ok_or_else(|| Numerics::GONE.to_owned())
}

pub(super) const TASKS: Choices<Benchmark> = &[
    ("countdown", Benchmark::Countdown, "Reach a target with all of the given numbers"),
    ("sudoku", Benchmark::Sudoku, "Fill a 4x4 Sudoku"),
    ("gsm8k", Benchmark::Gsm8k, "Word problems with a number as answer"),
    ("math", Benchmark::Math, "Competition problems with a LaTeX expression as answer"),
];

pub(super) const POSITIONS: Choices<PositionRule> = &[
    ("low-confidence", PositionRule::LowConfidence, "The most probable tokens first"),
    ("entropy", PositionRule::Entropy, "The surest distributions first"),
    ("random", PositionRule::Random, "In random order"),
    ("margin", PositionRule::Margin, "The tokens furthest ahead of the second first"),
    ("left-to-right", PositionRule::LeftToRight, "The leftmost positions first"),
];

/// Keys and values that passes take over.
pub(super) const CACHES: Choices<Cache> = &[
    ("none", Cache::None, "Every pass computes the whole sequence"),
    ("prefix", Cache::Prefix, "Those of the positions before the block"),
    ("dual", Cache::Dual, "Those of all positions outside the block"),
];

pub(super) const ESTIMATORS: Choices<EstimatorKind> = &[
    ("agrpo", EstimatorKind::Agrpo, "Drawn steps of the trajectory"),
    ("diffu-grpo", EstimatorKind::DiffuGrpo, "One pass over a masked completion"),
    ("coupled-grpo", EstimatorKind::CoupledGrpo, "Pairs of complementary masks"),
    ("merged-step", EstimatorKind::MergedStep, "Neighbouring steps in one pass"),
    ("ar-grpo", EstimatorKind::ArGrpo, "From left to right; needs rollout.block_tokens = 1"),
];

pub(super) const PROTOCOLS: Choices<Protocol> = &[
    ("agrpo", Protocol::Agrpo, "AGRPO's prompts, grades and held-out problems"),
    ("d1", Protocol::D1, "d1's prompts, grades and held-out problems"),
];

/// Published rules to grade by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RubricArg {
    /// d1's training rewards, part by part
    D1,
    /// d1's grades of evaluation
    D1Eval,
    /// AGRPO's training rewards, part by part
    Agrpo,
    /// AGRPO's grades of evaluation
    AgrpoEval,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PolicyArg {
    /// The newest
    Latest,
    /// The one before reinforcement learning
    Base,
}
