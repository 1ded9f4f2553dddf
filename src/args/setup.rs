//! The options of the verbs that prepare: `init`, `doctor`, `man` and `completions`.
//!
//! Doc comments here are the help.

use std::path::PathBuf;

use agrpo_spec::Numerics;
use clap::{Args, ValueEnum};

use super::options::{DeviceArgs, JsonArgs, RedisArgs, StoreArgs};

/// Write a run file with every key that matters and a comment on each
///
/// The file is one of the runs in jobs/runs, under your name and with your seed. Change what you like: a run
/// is what its file says, and agrpo run FILE --dry-run reports what that takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agrpo init
  agrpo init mine.toml --task sudoku --seed 2
  agrpo init llada.toml --task gsm8k --name my-llada
  agrpo init - | less")]
pub(crate) struct InitArgs {
    /// File to write; - writes to standard output
    #[arg(default_value = "run.toml")]
    pub(crate) file: PathBuf,
    /// What is to be learned
    #[arg(long, value_enum, default_value_t = InitTask::Smoke)]
    pub(crate) task: InitTask,
    /// Name of the run [default: the file's, without ending]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Seed of the run [default: that of the task's own file]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Write over a file that is there
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}

/// The runs to begin from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum InitTask {
    /// Countdown in half a minute, with every key there is
    Smoke,
    /// Countdown, five minutes on two cores
    Countdown,
    /// 4x4 Sudoku, four minutes on two cores
    Sudoku,
    /// GSM8K with LLaDA-8B, on GPUs
    Gsm8k,
    /// MATH with LLaDA-8B, on GPUs
    Math,
    /// Countdown with LLaDA-8B, on GPUs
    #[value(name = "llada-countdown")]
    LladaCountdown,
    /// 4x4 Sudoku with LLaDA-8B, on GPUs
    #[value(name = "llada-sudoku")]
    LladaSudoku,
}

/// Write manual pages, one for each command
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agrpo man ~/.local/share/man/man1
  man agrpo-run")]
pub(crate) struct ManArgs {
    /// Folder to write them into, made if it is not there
    pub(crate) folder: PathBuf,
}

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  agrpo completions bash > ~/.local/share/bash-completion/completions/agrpo")]
pub(crate) struct CompletionsArgs {
    /// Shell to complete in
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
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
