//! The options of the verbs that check the store and keep it in order: `gc`, `verify`, `forget` and `replay`. Reads no
//! store.

use std::time::Duration;

use clap::{ArgGroup, Args};

use super::options::{DeviceArgs, JsonArgs, StoreArgs};

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
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
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
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}

/// Forget a run: delete its records
///
/// Its results stay until the next agrpo gc deletes those that no other run needs. Refuses a run that could
/// still go on, unless it is forced; no worker may be computing it.
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
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
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
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}
