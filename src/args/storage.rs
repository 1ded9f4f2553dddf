//! The options of the verbs that move results out of the store and into it, check it and keep it in order: `export`,
//! `import`, `gc`, `verify`, `forget` and `replay`. Which options go with which format is checked in
//! `commands/export.rs`.

use std::{path::PathBuf, time::Duration};

use clap::{ArgGroup, Args, ValueEnum};
use serde::Serialize;

use super::options::{AnswerArgs, DeviceArgs, StoreArgs, ThreadsArgs};

/// Write a policy or a run's metrics for other programs
///
/// A policy as Hugging Face's tools, PEFT or safetensors read it, or a run's metrics for TensorBoard, W&B,
/// spreadsheets and scripts. Every byte is checked against its digest as it is read. The same run gives the same
/// files; what is there already is only replaced with --force.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agrpo export countdown --format hf -o countdown-hf
  agrpo export 3f2a --format peft --iteration 120 -o adapter
  agrpo export countdown --format csv -o countdown.csv
  agrpo export countdown --format tensorboard -o logs/countdown")]
pub(crate) struct ExportArgs {
    /// Run, by the start of its id or by its name; for a policy also the start of its digest, or of the
    /// stage that made it
    #[arg(value_name = "RUN|HASH")]
    pub(crate) what: String,
    /// What to write
    #[arg(long, value_enum)]
    pub(crate) format: FormatArg,
    /// Folder or file to write; - writes csv, jsonl and wandb to standard output
    #[arg(short, long, value_name = "PATH")]
    pub(crate) output: PathBuf,
    /// Which of the run's policies: latest, base, or the number of an iteration [default: latest]
    #[arg(long, value_name = "POLICY", value_parser = iteration)]
    pub(crate) iteration: Option<Iteration>,
    /// What the base is called elsewhere, as in GSAI-ML/LLaDA-8B-Instruct; for adapter_config.json and the
    /// README
    #[arg(long, value_name = "NAME")]
    pub(crate) base: Option<String>,
    /// Most bytes of tensors in a file of format hf [default: 5GB]
    #[arg(long, value_name = "BYTES", value_parser = crate::settings::bytes)]
    pub(crate) shard_size: Option<u64>,
    /// Replace the file, or the folder of an earlier export, that is there
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) answer: AnswerArgs<StoreArgs>,
}

/// What can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FormatArg {
    /// Folder of a whole model: configuration, weights, tokenizer, README
    Hf,
    /// Folder of an adapter, in PEFT's format
    Peft,
    /// Folder of the base with the adapter in its weights, in the base's type and files
    Merged,
    /// Folder with a file of events: scalars by iteration
    Tensorboard,
    /// File with a line for each iteration
    Csv,
    /// File with a JSON object for each iteration
    Jsonl,
    /// The same with the keys of W&B's history
    Wandb,
}

impl FormatArg {
    /// Whether it is about a policy, and not about a run's metrics.
    pub(crate) fn is_model(self) -> bool {
        matches!(self, Self::Hf | Self::Peft | Self::Merged)
    }
}

/// One of a run's policies: after so many iterations, 0 being the base; without a number the newest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Iteration(pub(crate) Option<u32>);

fn iteration(text: &str) -> Result<Iteration, &'static str> {
    let expected = "expected latest, base, or the number of an iteration";
    Ok(Iteration(match text {
        "latest" => None,
        "base" => Some(0),
        number => Some(number.parse().map_err(|_| expected)?),
    }))
}

/// Take a base from a Hugging Face folder into the store
///
/// Checks configuration, tokenizer and every tensor, stores the files by content, and prints the section
/// `checkpoint` of a run file, with digests and sizes. The folder stays as it is. Doing it again is harmless.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agrpo import /models/LLaDA-8B-Instruct
  agrpo import countdown-hf >> run.toml")]
pub(crate) struct ImportArgs {
    /// Folder with config.json, tokenizer.json and *.safetensors
    pub(crate) folder: PathBuf,
    #[command(flatten)]
    pub(crate) answer: AnswerArgs<StoreArgs>,
}

/// Delete what no run needs any more
///
/// Follows every run in the store from its record to all it reaches, and deletes what is left over and
/// old enough: results of forgotten runs, blobs that a run's retention no longer keeps, what killed
/// writers left behind. Safe beside running workers. Deletes nothing while a run cannot be followed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agrpo gc --dry-run
  agrpo gc --store s3://bucket/experiments
  agrpo gc --grace 7days")]
pub(crate) struct GcArgs {
    /// Report what would be deleted; delete nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Keep whatever was written within this time, as in 90min, 24h or 7days; below 1h only while no
    /// worker runs
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
    pub(crate) grace: Duration,
    #[command(flatten)]
    pub(crate) answer: AnswerArgs<StoreArgs>,
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; as in 90min, 24h or 7days"))
}

/// Read every byte of a run or of the whole store and compare it with its name
///
/// Changes nothing. The exit code is 5 if anything is missing or corrupt, or if another version of agrpo
/// wrote a record; the answer names the repair. What the run's retention deleted is no loss; what no run
/// reaches is counted, and agrpo gc deletes it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agrpo verify
  agrpo verify smoke --json")]
pub(crate) struct VerifyArgs {
    /// Run to check, by the start of its id or by its name [default: everything in the store]
    pub(crate) run: Option<String>,
    #[command(flatten)]
    pub(crate) answer: AnswerArgs<StoreArgs>,
}

/// Forget a run: delete its records
///
/// Its results stay until the next agrpo gc deletes those that no other run needs. Refuses a run that could
/// still go on, unless it is forced, and in any case one that agrpo run is computing. Make sure that no worker of a
/// fleet computes it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agrpo forget smoke --dry-run
  agrpo forget 3f2a91
  agrpo gc")]
pub(crate) struct ForgetArgs {
    /// Run to forget, by the start of its id or by its name
    pub(crate) run: String,
    /// Report what a gc could free then; delete nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Forget it even if stages are left, or if its record is damaged or no file
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) answer: AnswerArgs<StoreArgs>,
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
    /// First compute again and store inputs that are missing, corrupt or deleted by retention
    #[arg(long)]
    pub(crate) rewind: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    #[command(flatten)]
    pub(crate) threads: ThreadsArgs,
    #[command(flatten)]
    pub(crate) answer: AnswerArgs<StoreArgs>,
}
