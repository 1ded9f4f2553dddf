//! The options of the verbs that prepare: `init`, `doctor`, `man` and `completions`. They compute nothing.

use std::path::PathBuf;

use clap::Args;

use super::options::{Choices, DeviceArgs, FleetArgs, choice, whole};

/// Write a run file with every key that matters and a comment on each
///
/// The file is one of the runs in jobs/runs, under your name and with your seed. Change what you like: the
/// file defines the run, and agrpo run FILE --dry-run estimates time and memory.
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
    /// Task of the run
    #[arg(long, default_value = "smoke", value_parser = choice(TEMPLATES))]
    pub(crate) task: Template,
    /// Name of the run [default: the file's, without ending]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Seed of the run [default: that of the task's own file]
    #[arg(long, value_name = "N", value_parser = whole::<u64>)]
    pub(crate) seed: Option<u64>,
    /// Write over a file that is there
    #[arg(long)]
    pub(crate) force: bool,
    /// Answer in JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// A run to begin from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Template {
    /// The file's name in `jobs/runs`, without ending.
    pub(crate) name: &'static str,
    pub(crate) text: &'static str,
}

macro_rules! template {
    ($name:literal) => {
        Template { name: $name, text: include_str!(concat!("../../jobs/runs/", $name, ".toml")) }
    };
}

/// The runs to begin from, by task.
pub(crate) const TEMPLATES: Choices<Template> = &[
    ("smoke", template!("smoke"), "Countdown in half a minute, with every key there is"),
    ("countdown", template!("countdown"), "Countdown, five minutes on two cores"),
    ("sudoku", template!("sudoku"), "4x4 Sudoku, four minutes on two cores"),
    ("gsm8k", template!("llada-8b-gsm8k"), "GSM8K with LLaDA-8B, on GPUs"),
    ("math", template!("llada-8b-math"), "MATH with LLaDA-8B, on GPUs"),
    ("llada-countdown", template!("llada-8b-countdown"), "Countdown with LLaDA-8B, on GPUs"),
    ("llada-sudoku", template!("llada-8b-sudoku"), "4x4 Sudoku with LLaDA-8B, on GPUs"),
    ("d1-gsm8k", template!("d1-llada-8b-gsm8k"), "GSM8K with LLaDA-8B by d1's diffu-GRPO, on GPUs"),
    ("dream-gsm8k", template!("dream-7b-gsm8k"), "GSM8K with Dream 7B, on GPUs"),
    ("sdar-gsm8k", template!("sdar-8b-gsm8k"), "GSM8K with SDAR-8B, on GPUs"),
    ("llada-moe-gsm8k", template!("llada-moe-7b-gsm8k"), "GSM8K with LLaDA-MoE-7B, on GPUs"),
];

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
    pub(crate) fleet: FleetArgs,
    /// Answer in JSON
    #[arg(long)]
    pub(crate) json: bool,
}
