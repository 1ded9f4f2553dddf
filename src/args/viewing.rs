//! The options of the verbs that show runs to people: `status`, `show`, `report`, `serve` and `watch`. None of them
//! changes a run.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;

use super::options::{AnswerArgs, FleetArgs, StoreArgs, whole};

/// List runs with their progress and the accuracy of their policies
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agrpo status
  agrpo status 3f2a --json
  agrpo status --workers --redis redis://10.0.0.5:6379")]
pub(crate) struct StatusArgs {
    /// Run to list, by the start of its id or by its name [default: all]
    pub(crate) run: Option<String>,
    /// List the workers of the fleet instead, with their machines and stages
    #[arg(long, conflicts_with = "run")]
    pub(crate) workers: bool,
    #[command(flatten)]
    pub(crate) answer: AnswerArgs<FleetArgs>,
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
    pub(crate) answer: AnswerArgs<StoreArgs>,
    /// Write an artifact's bytes as they are
    #[arg(long, conflicts_with = "json")]
    pub(crate) raw: bool,
    /// Of a rollout, show this completion, counted from 0
    #[arg(long, value_name = "N", conflicts_with = "raw", value_parser = whole::<usize>)]
    pub(crate) sample: Option<usize>,
    /// Show it step by step, in the order in which its tokens were unmasked
    #[arg(long, requires = "sample", conflicts_with = "json")]
    pub(crate) play: bool,
}

/// Write what a run did, or how runs compare, as one HTML file
///
/// Curves with intervals, the workers' timeline, completions before and after training with every step that
/// unmasked them, and the lineage of the policy. The file needs no network and no other file. Several runs
/// stand beside each other, with the keys in which they differ.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agrpo report countdown -o report.html
  agrpo report 3f2a 91cc -o both.html --plots charts/")]
pub(crate) struct ReportArgs {
    /// Runs to report on, by the start of their ids or by their names
    #[arg(required = true, value_name = "RUN")]
    pub(crate) runs: Vec<String>,
    /// Where the report goes; of existing files only a report is replaced; - writes to standard output
    #[arg(short, long, value_name = "FILE", default_value = "report.html")]
    pub(crate) output: PathBuf,
    /// Write every chart into this folder, too, as SVG and as PNG
    #[arg(long, value_name = "DIR")]
    pub(crate) plots: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// Show runs on a live page, as they grow
///
/// Runs, curves, workers, failures, lineage, and completions step by step. The page changes nothing. It
/// listens on this machine alone unless another address is given; then a token is needed, taken from
/// AGRPO_SERVE_TOKEN or AGRPO_SERVE_TOKEN_FILE, or drawn and shown at the start.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agrpo serve
  agrpo serve --listen 0.0.0.0:8080 --store s3://bucket/experiments --redis redis://10.0.0.5:6379")]
pub(crate) struct ServeArgs {
    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7979")]
    pub(crate) listen: SocketAddr,
    #[command(flatten)]
    pub(crate) fleet: FleetArgs,
}

/// Watch runs in the terminal
///
/// The progress of runs, the reward and accuracy of the chosen one as they grow, its failures, and the workers.
/// Needs only a terminal, so it works over ssh.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agrpo watch
  agrpo watch countdown --store s3://bucket/experiments --redis redis://10.0.0.5:6379")]
pub(crate) struct WatchArgs {
    /// Run to show first, by the start of its id or by its name [default: the first]
    pub(crate) run: Option<String>,
    #[command(flatten)]
    pub(crate) fleet: FleetArgs,
}
