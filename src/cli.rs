//! The command line as people see it: verbs, options and their help.
//!
//! Doc comments here are the help; the options of the verbs that measure are in `measuring.rs`, the
//! values that options take in `values.rs`. Nothing is resolved here: defaults that depend on the
//! environment are in `settings.rs`, the work is in `commands/`.

mod beginning;
mod bench;
mod compare;
mod control;
mod exchange;
mod keeping;
mod measuring;
mod values;
mod viewing;

use std::net::SocketAddr;
use std::path::PathBuf;

use agrpo_spec::Numerics;
use agrpo_stages::Device;
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};

pub(crate) use self::beginning::{CompletionsArgs, InitArgs, InitTask, ManArgs};
pub(crate) use self::bench::BenchGpuArgs;
pub(crate) use self::compare::CompareArgs;
pub(crate) use self::control::{CancelArgs, ControlArgs, PauseArgs, ResumeArgs, RetryArgs};
pub(crate) use self::exchange::{ExportArgs, FormatArg, ImportArgs, Iteration};
pub(crate) use self::keeping::{ForgetArgs, GcArgs, VerifyArgs};
pub(crate) use self::measuring::{EvaluateArgs, ScoreArgs, TuneArgs};
pub(crate) use self::values::{CacheArg, EstimatorArg, PolicyArg, PositionArg, RubricArg, TaskArg};
pub(crate) use self::viewing::{ReportArgs, ServeArgs, WatchArgs};
use crate::exit::CODES;

/// Version and commit.
pub(crate) const VERSION: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (", env!("AGRPO_COMMIT"), ")");

/// Post-train diffusion language models with reinforcement learning, replayable to the bit
///
/// A run is a TOML file. From it follows, stage by stage, one chain of results: the same file gives
/// the same bytes, whoever computes them, in whatever order, however often they were interrupted.
#[derive(Debug, Parser)]
#[command(name = "agrpo", version = VERSION, after_help = CODES, arg_required_else_help = true)]
#[command(max_term_width = 100, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// Format of log lines on stderr
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    #[arg(help_heading = "Global options")]
    pub(crate) log_format: LogFormat,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Init(InitArgs),
    Run(RunArgs),
    Enqueue(EnqueueArgs),
    Worker(WorkerArgs),
    Status(StatusArgs),
    Pause(PauseArgs),
    Resume(ResumeArgs),
    Cancel(CancelArgs),
    Retry(RetryArgs),
    Show(ShowArgs),
    Report(ReportArgs),
    Serve(ServeArgs),
    Watch(WatchArgs),
    Export(ExportArgs),
    Import(ImportArgs),
    Replay(ReplayArgs),
    Verify(VerifyArgs),
    Gc(GcArgs),
    Forget(ForgetArgs),
    Evaluate(EvaluateArgs),
    Compare(CompareArgs),
    Tune(TuneArgs),
    Score(ScoreArgs),
    Doctor(DoctorArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
    #[command(hide = true)]
    BenchGpu(BenchGpuArgs),
}

/// Seconds that a service may be away, whoever computes.
pub(crate) const PATIENCE: u64 = 300;

/// What computes.
#[derive(Debug, Args)]
pub(crate) struct DeviceArgs {
    /// What computes: cpu, or cuda:N for the GPU number N
    #[arg(long, value_name = "DEVICE", default_value_t = Device::Cpu)]
    pub(crate) device: Device,
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

/// Where hints about work are queued.
#[derive(Debug, Args)]
pub(crate) struct RedisArgs {
    /// Redis server that workers share [default: $AGRPO_REDIS, else redis://127.0.0.1:6379]
    #[arg(long, value_name = "URL")]
    pub(crate) redis: Option<String>,
}

/// Where metrics are told.
#[derive(Debug, Args)]
pub(crate) struct MetricsArgs {
    /// Tell Prometheus metrics at this address, as in 127.0.0.1:9180; loopback is best, as anybody who
    /// reaches it may read them [default: $AGRPO_METRICS, else off]
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

/// What to run.
#[derive(Debug, Args)]
pub(crate) struct RunFileArgs {
    /// Run file in TOML; - reads standard input
    pub(crate) file: PathBuf,
    /// Seed to use instead of the file's
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Numerics class to use instead of the file's: cpu-portable, cpu-native, or cuda:SM for GPUs of
    /// compute capability SM
    #[arg(long, value_name = "CLASS")]
    pub(crate) numerics: Option<Numerics>,
    /// Where a file that the run names is to be had, instead of what it says; may be repeated
    #[arg(long = "source", value_name = "KEY=ADDRESS", value_parser = source)]
    pub(crate) sources: Vec<(String, String)>,
}

fn source(text: &str) -> Result<(String, String), &'static str> {
    let (key, address) = text
        .split_once('=')
        .ok_or("expected KEY=ADDRESS, as in task.benchmark.train=rows.jsonl")?;
    Ok((key.to_owned(), address.to_owned()))
}

/// Compute a run on this machine, without any service
///
/// Stages that the store already holds are not computed again, so the same command resumes a run that
/// was stopped or crashed. Ctrl-C lets the stages in hand finish; a second Ctrl-C stops at once. A run
/// that agrpo pause holds back waits for agrpo resume; agrpo cancel ends it with code 130. The number of
/// workers changes how long it takes, never what comes out.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agrpo run jobs/runs/smoke.toml
  agrpo run jobs/runs/smoke.toml --workers 8 --store s3://bucket/experiments
  agrpo run jobs/runs/smoke.toml --seed 2
  agrpo run jobs/runs/smoke.toml --numerics cuda:90 --device cuda:0
  agrpo run jobs/runs/llada-8b-gsm8k.toml --dry-run")]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) run: RunFileArgs,
    /// Say what would be computed, how large it gets and how long it takes; compute nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Operations a second of one worker to estimate time with, in 10^12 [default: assumed by class]
    #[arg(long, value_name = "N", requires = "dry_run")]
    pub(crate) tflops: Option<f64>,
    /// Compute even what is estimated not to fit into memory
    #[arg(long)]
    pub(crate) ignore_memory: bool,
    /// Read all of the run first, move to aside/ what is damaged, and compute again what is missing
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) repair: bool,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// Stages computed at the same time, one thread each [default: number of cores, or 1 on a GPU]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) workers: Option<u16>,
    /// How long a bucket may be away before the run ends
    #[arg(long, value_name = "SECONDS", default_value_t = PATIENCE)]
    pub(crate) patience: u64,
    #[command(flatten)]
    pub(crate) metrics: MetricsArgs,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}

/// Hand a run to the workers of a fleet
///
/// Records the run in the store and queues the stages that can be computed now; workers queue the rest
/// as results come in. Enqueueing a run again is harmless and wakes it up after a lost queue.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  agrpo enqueue jobs/runs/smoke.toml --store s3://bucket/experiments --redis redis://10.0.0.5:6379")]
pub(crate) struct EnqueueArgs {
    #[command(flatten)]
    pub(crate) run: RunFileArgs,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) redis: RedisArgs,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}

/// Compute queued stages until stopped
///
/// Takes one stage at a time on one thread; start one worker for each core, or for each GPU. SIGTERM or
/// Ctrl-C lets the stage in hand finish for a grace time, then gives it back; a second one gives it back
/// at once. A worker may be killed at any moment: its stage goes to another one. A worker that lost its
/// lease, or Redis for five minutes, ends with code 4 for its supervisor to start it again.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agrpo worker --store s3://bucket/experiments --redis redis://10.0.0.5:6379
  agrpo worker --exit-when-idle 60")]
pub(crate) struct WorkerArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
    #[command(flatten)]
    pub(crate) redis: RedisArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// Numerics class that this worker honours: cpu-portable, cpu-native, or cuda:SM for a GPU [default:
    /// that of the GPU, or whichever has work; it restarts to change]
    #[arg(long, value_name = "CLASS")]
    pub(crate) numerics: Option<Numerics>,
    /// Stop after this many seconds without work [default: wait for ever]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) exit_when_idle: Option<u64>,
    /// How long to finish the stage in hand when told to stop, before it is given back; the default is
    /// below a supervisor's 15 minutes
    #[arg(long, value_name = "SECONDS", default_value_t = 840)]
    pub(crate) grace: u64,
    /// How long Redis or the store may be away before the worker ends
    #[arg(long, value_name = "SECONDS", default_value_t = PATIENCE)]
    pub(crate) patience: u64,
    #[command(flatten)]
    pub(crate) metrics: MetricsArgs,
}

/// List runs: how far they are and how accurate their policies
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agrpo status
  agrpo status 3f2a --json
  agrpo status --workers --redis redis://10.0.0.5:6379")]
pub(crate) struct StatusArgs {
    /// Run to list, by the start of its id or by its name [default: all]
    pub(crate) run: Option<String>,
    /// List the workers of the fleet instead: where they are and what they compute
    #[arg(long, conflicts_with = "run")]
    pub(crate) workers: bool,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) redis: RedisArgs,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}

/// Show a run, a stage or an artifact
///
/// A run is shown with every default explicit, a stage with its spec, inputs, outputs, metrics and how
/// it was made, an artifact by what is inside.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agrpo show 3f2a91
  agrpo show 3f2a91 --json
  agrpo show 77c0d2 --raw > model.safetensors
  agrpo show 91cc04 --sample 3 --play")]
pub(crate) struct ShowArgs {
    /// Start of a run's, a stage's or an artifact's digest, or a run's name
    pub(crate) hash: String,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
    /// Write an artifact's bytes as they are
    #[arg(long, conflicts_with = "json")]
    pub(crate) raw: bool,
    /// Of a rollout, show this completion, counted from 0
    #[arg(long, value_name = "N", conflicts_with = "raw")]
    pub(crate) sample: Option<usize>,
    /// Show it step by step, in the order in which its tokens were unmasked
    #[arg(long, requires = "sample", conflicts_with = "json")]
    pub(crate) play: bool,
}

/// Compute stages again and compare every output with the stored one
///
/// Changes nothing in the store, unless --rewind is given. The exit code is 0 if every byte is identical, 3
/// if an output differs and 5 if a stored blob is corrupt or missing.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").args(["hash", "run"]).required(true))]
#[command(after_help = "\
Examples:
  agrpo replay 3f2a91
  agrpo replay 3f2a91 --rewind
  agrpo replay --run smoke")]
pub(crate) struct ReplayArgs {
    /// Start of a stage's digest
    pub(crate) hash: Option<String>,
    /// Replay every finished stage of this run, by the start of its id or by its name
    #[arg(long)]
    pub(crate) run: Option<String>,
    /// Make inputs that are missing, corrupt or no longer kept again first, and store them
    #[arg(long)]
    pub(crate) rewind: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}

/// Check this machine and the services, and say what to do
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agrpo doctor
  agrpo doctor --store s3://bucket/experiments --redis redis://10.0.0.5:6379
  agrpo doctor --device cuda:0")]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) redis: RedisArgs,
    /// Check the rows of small shapes in this process alone, in this numerics class
    #[arg(long, hide = true, value_name = "CLASS")]
    pub(crate) rows: Option<Numerics>,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}

#[cfg(test)]
mod tests;
