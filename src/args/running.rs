//! The options of the verbs that compute and control runs: `run`, `enqueue`, `worker`, `pause` and its like. Computes
//! nothing.

use std::path::PathBuf;

use agrpo_spec::Numerics;
use clap::{Args, value_parser};

use super::options::{
    AnswerArgs, CacheArgs, ComputeArgs, DeviceArgs, FleetArgs, MetricsArgs, RETRY_SECONDS,
    StoreArgs, ThreadsArgs, numerics, whole,
};

/// What to run.
#[derive(Debug, Args)]
pub(crate) struct RunFileArgs {
    /// Run file in TOML; - reads standard input
    pub(crate) file: PathBuf,
    /// Seed to use instead of the file's
    #[arg(long, value_name = "N", value_parser = whole::<u64>)]
    pub(crate) seed: Option<u64>,
    /// Numerics class to use instead of the file's: cpu-portable, or cuda:SM for GPUs of compute
    /// capability SM
    #[arg(long, value_name = "CLASS", value_parser = numerics)]
    pub(crate) numerics: Option<Numerics>,
    /// Address of a file that the run names, instead of the run file's own; may be repeated
    #[arg(long = "source", value_name = "KEY=ADDRESS", value_parser = source)]
    pub(crate) sources: Vec<(String, String)>,
}

fn tflops(text: &str) -> Result<f64, &'static str> {
    let is_possible = |number: &f64| (1e-6..=1e12).contains(number);
    text.parse().ok().filter(is_possible).ok_or("expected a number from 0.000001 to 10^12")
}

fn source(text: &str) -> Result<(String, String), &'static str> {
    let expected = "expected KEY=ADDRESS, as in task.benchmark.train=rows.jsonl";
    let (key, address) = text.split_once('=').ok_or(expected)?;
    Ok((key.to_owned(), address.to_owned()))
}

/// Compute a run on this machine, without any service
///
/// Stages that the store already holds are not computed again, so the same command resumes a run that
/// was stopped or crashed. Ctrl-C lets the stages in hand finish; a second Ctrl-C stops at once. A run
/// that is paused waits for agrpo resume; agrpo cancel ends it with code 130. The numbers of threads
/// and of workers change how long it takes, never the results.
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
    /// Report what would be computed, how large it gets and how long it takes; compute nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Operations a second of one thread or GPU to estimate time with, in 10^12 [default: assumed by class]
    #[arg(long, value_name = "N", requires = "dry_run", value_parser = tflops)]
    pub(crate) tflops: Option<f64>,
    /// GPUs to estimate time for, each with a worker, where GPUs compute the run [default: 1]
    #[arg(long, value_name = "N", requires = "dry_run", value_parser = value_parser!(u16).range(1..=4096))]
    pub(crate) gpus: Option<u16>,
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
    pub(crate) compute: ComputeArgs,
    /// How long to retry while the bucket is unavailable, before the run is given up
    #[arg(long, value_name = "SECONDS", default_value_t = RETRY_SECONDS)]
    #[arg(value_parser = whole::<u64>)]
    pub(crate) patience: u64,
    #[command(flatten)]
    pub(crate) metrics: MetricsArgs,
    /// Answer in JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Queue a run for the workers of a fleet
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
    pub(crate) answer: AnswerArgs<FleetArgs>,
}

/// Compute queued stages until stopped
///
/// Takes one stage at a time, and computes it on all cores that the process may use; start one worker on
/// each machine, or for each GPU, or several with --threads that add up to the cores. SIGTERM or Ctrl-C
/// lets the stage in hand finish for a grace time, then gives it back; a second one gives it back at once. A worker may be killed at any moment: its stage goes to another one. A worker that lost its
/// lease, or Redis for five minutes, ends with code 4 for its supervisor to start it again.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agrpo worker --store s3://bucket/experiments --redis redis://10.0.0.5:6379
  agrpo worker --exit-when-idle 60")]
pub(crate) struct WorkerArgs {
    #[command(flatten)]
    pub(crate) fleet: FleetArgs,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    #[command(flatten)]
    pub(crate) threads: ThreadsArgs,
    /// Numerics class that this worker serves: cpu-portable, or cuda:SM for a GPU [default: that of the
    /// device]
    #[arg(long, value_name = "CLASS", value_parser = numerics)]
    pub(crate) numerics: Option<Numerics>,
    /// Stop after this many seconds without work [default: wait for ever]
    #[arg(long, value_name = "SECONDS", value_parser = whole::<u64>)]
    pub(crate) exit_when_idle: Option<u64>,
    /// How long the stage in hand may take after a signal to stop, before it is given back; the default is
    /// below a supervisor's 15 minutes
    #[arg(long, value_name = "SECONDS", default_value_t = 840, value_parser = whole::<u64>)]
    pub(crate) grace: u64,
    /// How long to retry while Redis or the store is unavailable, before the worker ends
    #[arg(long, value_name = "SECONDS", default_value_t = RETRY_SECONDS)]
    #[arg(value_parser = whole::<u64>)]
    pub(crate) patience: u64,
    #[command(flatten)]
    pub(crate) metrics: MetricsArgs,
}

/// Which run is paused, resumed, cancelled or tried again. The help of these verbs is in `args.rs`.
#[derive(Debug, Args)]
pub(crate) struct ControlArgs {
    /// Run, by the start of its id or by its name
    pub(crate) run: String,
    #[command(flatten)]
    pub(crate) answer: AnswerArgs<FleetArgs>,
}
