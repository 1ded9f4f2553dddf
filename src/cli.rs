//! The command line as people see it: verbs, options and their help.
//!
//! Doc comments here are the help. Nothing is resolved here: defaults that depend on the environment
//! are in `settings.rs`, the work is in `commands/`.

mod compare;

use std::path::PathBuf;

use agrpo_spec::{Numerics, PositionRule, Real};
use clap::builder::PossibleValue;
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};

pub(crate) use self::compare::CompareArgs;
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
    Run(RunArgs),
    Enqueue(EnqueueArgs),
    Worker(WorkerArgs),
    Status(StatusArgs),
    Show(ShowArgs),
    Replay(ReplayArgs),
    Evaluate(EvaluateArgs),
    Compare(CompareArgs),
    Score(ScoreArgs),
    Doctor(DoctorArgs),
    Completions(CompletionsArgs),
}

/// Where results are kept.
#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    /// Folder, file:///path or s3://bucket/prefix that keeps all results [default: $AGRPO_STORE,
    /// else .agrpo]
    #[arg(long, value_name = "URL")]
    pub(crate) store: Option<String>,
}

/// Where hints about work are queued.
#[derive(Debug, Args)]
pub(crate) struct RedisArgs {
    /// Redis server that workers share [default: $AGRPO_REDIS, else redis://127.0.0.1:6379]
    #[arg(long, value_name = "URL")]
    pub(crate) redis: Option<String>,
}

/// The form of the answer.
#[derive(Debug, Args)]
pub(crate) struct JsonArgs {
    /// Answer in JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Compute a run on this machine, without any service
///
/// Stages that the store already holds are not computed again, so the same command resumes a run that
/// was stopped or crashed. Ctrl-C lets the stages in hand finish; a second Ctrl-C stops at once. The
/// number of workers changes how long it takes, never what comes out.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agrpo run jobs/runs/smoke.toml
  agrpo run jobs/runs/smoke.toml --workers 8 --store s3://bucket/experiments
  agrpo run jobs/runs/smoke.toml --seed 2")]
pub(crate) struct RunArgs {
    /// Run file in TOML; - reads standard input
    pub(crate) file: PathBuf,
    /// Seed to use instead of the file's
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// Stages computed at the same time, one thread each [default: number of cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) workers: Option<u16>,
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
    /// Run file in TOML; - reads standard input
    pub(crate) file: PathBuf,
    /// Seed to use instead of the file's
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) redis: RedisArgs,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}

/// Compute queued stages until stopped
///
/// Takes one stage at a time on one thread; start one worker for each core. SIGTERM or Ctrl-C lets the
/// stage in hand finish. A worker may be killed at any moment: its stage goes to another one.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agrpo worker --store s3://bucket/experiments --redis redis://10.0.0.5:6379
  agrpo worker --exit-when-idle 60")]
pub(crate) struct WorkerArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) redis: RedisArgs,
    /// What computes
    #[arg(long, value_enum, default_value_t = Device::Cpu)]
    pub(crate) device: Device,
    /// Numerics class that this worker honours [default: whichever has work; it restarts to change]
    #[arg(long, value_enum, value_name = "CLASS")]
    pub(crate) numerics: Option<NumericsArg>,
    /// Stop after this many seconds without work [default: wait for ever]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) exit_when_idle: Option<u64>,
}

/// List runs: how far they are and how accurate their policies
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agrpo status
  agrpo status 3f2a --json")]
pub(crate) struct StatusArgs {
    /// Run to list, by the start of its id or by its name [default: all]
    pub(crate) run: Option<String>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
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
  agrpo show 77c0d2 --raw > model.safetensors")]
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
}

/// Compute stages again and compare every output with the stored one
///
/// Changes nothing in the store. The exit code is 0 if every byte is identical, 3 if an output differs
/// and 5 if a stored blob is corrupt or missing.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").args(["hash", "run"]).required(true))]
#[command(after_help = "\
Examples:
  agrpo replay 3f2a91
  agrpo replay --run smoke")]
pub(crate) struct ReplayArgs {
    /// Start of a stage's digest
    pub(crate) hash: Option<String>,
    /// Replay every finished stage of this run, by the start of its id or by its name
    #[arg(long)]
    pub(crate) run: Option<String>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}

/// Measure base and newest policy on a grid of unmask steps
///
/// Fewer steps write more tokens at once: what they save in compute they cost in accuracy, and this says
/// how much. Every evaluation is a stage: what the store holds is not computed again, and agrpo replay
/// computes it again. Without --temperature decoding is greedy; with it, completions are sampled with
/// the run's top_k and top_p, and pass@n is the share of problems that n of them solve.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agrpo evaluate countdown
  agrpo evaluate 3f2a --steps 8,4,2 --problems 300 --temperature 1 --samples 8
  agrpo evaluate 3f2a --plot steps.svg")]
pub(crate) struct EvaluateArgs {
    /// Run to measure, by the start of its id or by its name
    pub(crate) run: String,
    /// Numbers of unmask steps [default: all that fit the completion's tokens and blocks]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = steps)]
    pub(crate) steps: Vec<u32>,
    /// Held-out problems [default: as many as the run's own evaluations]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    pub(crate) problems: Option<u32>,
    /// Sample at this temperature instead of decoding greedily
    #[arg(long, value_name = "T", requires = "samples", value_parser = temperature)]
    pub(crate) temperature: Option<Real>,
    /// Completions of a problem, where they are sampled
    #[arg(long, value_name = "N", requires = "temperature")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) samples: Option<u32>,
    /// Which positions a step unmasks [default: as in the run's own evaluations]
    #[arg(long, value_enum, value_name = "RULE")]
    pub(crate) position: Option<PositionArg>,
    /// Draw a chart of base and newest policy
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) plot: Option<PathBuf>,
    /// Evaluations computed at the same time, one thread each [default: number of cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) workers: Option<u16>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}

fn steps(text: &str) -> Result<u32, &'static str> {
    text.trim().parse().map_err(|_| "expected whole numbers with commas between, as in 8,4,2")
}

fn temperature(text: &str) -> Result<Real, &'static str> {
    let value = text.parse().ok().and_then(Real::new).filter(|value| value.get() > 0.0);
    value.ok_or("expected a number above 0; without the option, decoding is greedy")
}

/// Grade your own completions with a task's reward
///
/// Reads one JSON object a line and writes it back with `reward`, `parts`, `extracted` and `correct`
/// added; the mean goes to stderr. A row has a `completion` and a `ground_truth`: for countdown
/// {"numbers": [3, 7, 8], "target": 29} or [[3, 7, 8], 29], for sudoku the solution as 16 digits, and
/// a `question` that holds the puzzle as 16 digits with 0 for a blank. Other keys are kept.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  echo '{\"ground_truth\": [[3, 7, 8], 29], \"completion\": \"7*3+8\"}' | agrpo score --task countdown -")]
pub(crate) struct ScoreArgs {
    /// Task whose reward grades
    #[arg(long, value_enum)]
    pub(crate) task: TaskArg,
    /// File of JSON rows; - reads standard input
    pub(crate) file: PathBuf,
}

/// Check this machine and the services, and say what to do
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agrpo doctor
  agrpo doctor --store s3://bucket/experiments --redis redis://10.0.0.5:6379")]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) redis: RedisArgs,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
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

/// Devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Device {
    /// The processor
    Cpu,
}

/// Tasks that grade.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TaskArg {
    /// Reach a target with all of the given numbers
    Countdown,
    /// Fill a 4x4 Sudoku
    Sudoku,
}

/// A numerics class on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NumericsArg(pub(crate) Numerics);

impl ValueEnum for NumericsArg {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self(Numerics::CpuPortable), Self(Numerics::CpuNative)]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self.0 {
            Numerics::CpuPortable => "The same bytes on every x86-64 machine with AVX2",
            Numerics::CpuNative => "Faster; the same bytes on CPUs of the same kind",
        };
        Some(PossibleValue::new(self.0.name()).help(help))
    }
}

/// A rule for positions on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PositionArg(pub(crate) PositionRule);

impl ValueEnum for PositionArg {
    fn value_variants<'a>() -> &'a [Self] {
        const {
            &[
                Self(PositionRule::LowConfidence),
                Self(PositionRule::Entropy),
                Self(PositionRule::Random),
            ]
        }
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let (name, help) = match self.0 {
            PositionRule::LowConfidence => ("low-confidence", "The most probable tokens first"),
            PositionRule::Entropy => ("entropy", "The surest distributions first"),
            PositionRule::Random => ("random", "In random order"),
        };
        Some(PossibleValue::new(name).help(help))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
