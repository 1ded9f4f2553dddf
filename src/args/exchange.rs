//! The options of the verbs that write for other programs and read from them: `export` and `import`. Which options go
//! with which format is checked in `commands/export.rs`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::options::{JsonArgs, StoreArgs};

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
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}

/// What can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
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
    /// As on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

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
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}
