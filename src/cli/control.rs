//! The options of the verbs that hold runs back, let them go and try them again.

use clap::Args;

use super::{JsonArgs, RedisArgs, StoreArgs};

/// Hold a run back: begin no stage of it until it is resumed
///
/// Takes effect within two seconds, wherever the run is computed: stages in hand are finished, no other
/// one is begun. Workers learn of it through Redis; without one only `agrpo run` obeys, and this says so.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agrpo pause smoke
  agrpo pause 3f2a --store s3://bucket/experiments --redis redis://10.0.0.5:6379")]
pub(crate) struct PauseArgs {
    #[command(flatten)]
    pub(crate) control: ControlArgs,
}

/// Let a run go on that was paused or cancelled
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  agrpo resume smoke")]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    pub(crate) control: ControlArgs,
}

/// Give a run up: begin no stage of it, unless somebody asks for the run again
///
/// Like pause, but `agrpo run` ends instead of waiting. Nothing is deleted: agrpo run, agrpo enqueue and
/// agrpo resume take it up again where it was.
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
