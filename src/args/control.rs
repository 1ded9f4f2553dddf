//! The options of the verbs that control runs: `pause`, `resume`, `cancel` and `retry`.
//!
//! Doc comments here are the help.

use clap::Args;

use super::options::{JsonArgs, RedisArgs, StoreArgs};

/// Pause a run: begin no stage of it until it is resumed
///
/// Takes effect within two seconds, wherever the run is computed: stages in hand are finished, no other
/// one is begun. Workers are notified through Redis; without one only `agrpo run` obeys, and this says so.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agrpo pause smoke
  agrpo pause 3f2a --store s3://bucket/experiments --redis redis://10.0.0.5:6379")]
pub(crate) struct PauseArgs {
    #[command(flatten)]
    pub(crate) control: ControlArgs,
}

/// Resume a run that was paused or cancelled
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  agrpo resume smoke")]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    pub(crate) control: ControlArgs,
}

/// Cancel a run: begin no stage of it until the run is asked for again
///
/// Like pause, but `agrpo run` ends instead of waiting. Nothing is deleted: agrpo run, agrpo enqueue and
/// agrpo resume continue it where it was.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  agrpo cancel smoke")]
pub(crate) struct CancelArgs {
    #[command(flatten)]
    pub(crate) control: ControlArgs,
}

/// Give a run's failed stages new attempts
///
/// Clears the failure records and the counts of attempts, and offers the stages to the workers again.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  agrpo retry smoke")]
pub(crate) struct RetryArgs {
    #[command(flatten)]
    pub(crate) control: ControlArgs,
}

/// Which run, and where.
#[derive(Debug, Args)]
pub(crate) struct ControlArgs {
    /// Run, by the start of its id or by its name
    pub(crate) run: String,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) redis: RedisArgs,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}
