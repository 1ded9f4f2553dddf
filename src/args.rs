//! The command line as people see it: verbs, options and their help. Doc comments here and in `args/` are the help.
//! Resolves nothing: defaults that depend on the environment are in `settings.rs`, the work is in `commands/`.

mod measuring;
mod options;
mod running;
mod setup;
mod storage;
mod viewing;

use std::ffi::OsString;

use clap::{Arg, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

pub(crate) use self::{measuring::*, options::*, running::*, setup::*, storage::*, viewing::*};
use crate::{exit::CODES, machine::VERSION};

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

impl Cli {
    /// Reads arguments. A negative number after an option is its value: the option reports what it expects.
    pub(crate) fn read(arguments: impl Iterator<Item = OsString>) -> Result<Self, clap::Error> {
        let option = |argument: Arg| {
            let is_option = !argument.is_positional() && argument.get_action().takes_values();
            argument.allow_negative_numbers(is_option)
        };
        let mut arguments: Vec<OsString> = arguments.collect();
        if arguments.get(1).is_some_and(|word| word == "help") {
            // `agrpo help VERB` is `agrpo VERB --help`; clap's own verb would have a help page for each other verb.
            arguments.remove(1);
            if arguments.get(1).is_some_and(|word| word == "help") {
                arguments.remove(1);
            }
            arguments.push("--help".into());
        }
        let cli = Self::command().mut_args(option).mut_subcommands(|verb| verb.mut_args(option));
        Self::from_arg_matches(&cli.try_get_matches_from(arguments)?)
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Init(InitArgs),
    Run(RunArgs),
    Enqueue(EnqueueArgs),
    Worker(WorkerArgs),
    Status(StatusArgs),
    /// Pause a run: begin no stage of it until it is resumed
    ///
    /// Takes effect within two seconds, wherever the run is computed: stages in hand are finished, no other
    /// one is started. Workers are notified through Redis; without it only `agrpo run` notices, and the
    /// command reports that.
    #[command(after_help = "\
Examples:
  agrpo pause smoke
  agrpo pause 3f2a --store s3://bucket/experiments --redis redis://10.0.0.5:6379")]
    Pause(ControlArgs),
    /// Resume a run that was paused or cancelled
    #[command(after_help = "Example:\n  agrpo resume smoke")]
    Resume(ControlArgs),
    /// Cancel a run: begin no stage of it until the run is asked for again
    ///
    /// Like pause, but `agrpo run` ends instead of waiting. Nothing is deleted: agrpo run, agrpo enqueue and
    /// agrpo resume continue it where it was.
    #[command(after_help = "Example:\n  agrpo cancel smoke")]
    Cancel(ControlArgs),
    /// Give a run's failed stages new attempts
    ///
    /// Clears the failure records and the counts of attempts, and offers the stages to the workers again.
    #[command(after_help = "Example:\n  agrpo retry smoke")]
    Retry(ControlArgs),
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
