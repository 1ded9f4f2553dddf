//! The options of the verbs that show runs to people: `report`, `serve` and `watch`.
//!
//! Doc comments here are the help.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::{RedisArgs, StoreArgs};

/// Write what a run did, or how runs compare, as one HTML file
///
/// Curves with intervals, the workers' timeline, completions before and after training with every step that
/// unmasked them, and the lineage of the policy. The file needs no network; anybody can open it. Several runs
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
    /// Where the report goes
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
/// Runs, curves, workers, failures, lineage, and completions step by step. Only looks: nothing can be changed
/// through it. It listens on this machine alone unless another address is given; then a token is needed, taken
/// from AGRPO_SERVE_TOKEN or AGRPO_SERVE_TOKEN_FILE, or drawn and shown at the start.
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
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) redis: RedisArgs,
}

/// Watch runs in the terminal
///
/// Where runs stand, the reward and accuracy of the chosen one as they grow, its failures, and who works.
/// Needs nothing but a terminal, so it does over ssh.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agrpo watch
  agrpo watch countdown --store s3://bucket/experiments --redis redis://10.0.0.5:6379")]
pub(crate) struct WatchArgs {
    /// Run to look at first, by the start of its id or by its name [default: the first]
    pub(crate) run: Option<String>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) redis: RedisArgs,
}
