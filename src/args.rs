//! The command line as people see it: verbs, options and their help.
//!
//! Doc comments here are the help; options that several verbs share are in `options.rs`, the values that
//! options take in `values.rs`. Nothing is resolved here: defaults that depend on the environment are in
//! `settings.rs`, the work is in `commands/`.

mod bench;
mod compare;
mod control;
mod exchange;
mod maintenance;
mod measuring;
pub(crate) mod options;
mod running;
mod setup;
mod values;
mod viewing;

use clap::{Parser, Subcommand, ValueEnum};

pub(crate) use self::bench::BenchGpuArgs;
pub(crate) use self::compare::CompareArgs;
pub(crate) use self::control::{CancelArgs, ControlArgs, PauseArgs, ResumeArgs, RetryArgs};
pub(crate) use self::exchange::{ExportArgs, FormatArg, ImportArgs, Iteration};
pub(crate) use self::maintenance::{ForgetArgs, GcArgs, ReplayArgs, VerifyArgs};
pub(crate) use self::measuring::{EvaluateArgs, ScoreArgs, TuneArgs};
pub(crate) use self::options::{CacheArgs, PATIENCE, RedisArgs, StoreArgs};
pub(crate) use self::running::{EnqueueArgs, RunArgs, RunFileArgs, WorkerArgs};
pub(crate) use self::setup::{CompletionsArgs, DoctorArgs, InitArgs, InitTask, ManArgs};
pub(crate) use self::values::{PolicyArg, RubricArg, TaskArg};
pub(crate) use self::viewing::{ReportArgs, ServeArgs, ShowArgs, StatusArgs, WatchArgs};
use crate::exit::CODES;
use crate::machine::VERSION;

/// Post-train diffusion language models with reinforcement learning, replayable to the bit
///
/// A run is a TOML file. From it follows, stage by stage, one chain of results: the same file gives
/// the same bytes, on any machines of its class, in any order, however often they were interrupted.
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

#[cfg(test)]
mod tests;
