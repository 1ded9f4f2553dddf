//! Options of `agrpo compare`.

use std::path::PathBuf;

use clap::Args;

use super::options::{DeviceArgs, StoreArgs};

/// Compute variants of a run over several seeds and lay them side by side
///
/// The file names a run file, seeds, and what each variant changes. What the store lacks is computed, run
/// after run; then NAME.md, NAME.svg and NAME.json are written, NAME being the file's.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  agrpo compare jobs/runs/compare/countdown.toml --output docs/comparison")]
pub(crate) struct CompareArgs {
    /// Comparison file in TOML
    pub(crate) file: PathBuf,
    /// Folder that the page, the curves and the numbers are written to
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// Stages computed at the same time, one thread each [default: number of cores, or 1 on a GPU]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) workers: Option<u16>,
}
