//! `agrpo export`: policies and metrics as other programs read them.
//!
//! Reads the store and changes nothing in it. Files appear whole or not at all. Formats are defined in
//! `agrpo-export`; adapters are merged by `agrpo-compute`.

mod metrics;
mod model;
mod summary;
mod target;
mod whole_history;

use crate::args::{ExportArgs, FormatArg};
use crate::commands::recovery;
use crate::exit::{Exit, Failure};
use crate::output;
use crate::session::Session;

/// Writes the export, and reports its files.
pub(super) fn export(args: &ExportArgs, session: &Session) -> Result<Exit, Failure> {
    check(args)?;
    let summary = session.block_on(async {
        let store = session.existing_store().await?;
        let written = if args.format.is_model() {
            model::export(&store, args).await.map(Some)
        } else {
            metrics::export(&store, args).await
        };
        recovery::explained(&store, session, written).await
    })?;
    match summary {
        Some(summary) if args.json.json => output::json(&summary)?,
        Some(summary) => output::line(summary.describe())?,
        // The rows themselves were the answer.
        None => {}
    }
    Ok(Exit::Done)
}

/// Refuses options that have no meaning for the format.
fn check(args: &ExportArgs) -> Result<(), Failure> {
    let format = args.format.name();
    let refuse = |option: &str, why: &str| {
        Err(Failure::usage(format!("{option} does not go with --format {format}: {why}")))
    };
    let is_model = args.format.is_model();
    if args.iteration.is_some() && !is_model {
        return refuse("--iteration", "every iteration has its row");
    }
    if args.base.is_some() && !is_model {
        return refuse("--base", "it is for hf, merged and peft");
    }
    if args.shard_size.is_some() && args.format != FormatArg::Hf {
        return refuse("--shard-size", "it is for hf");
    }
    let is_stream = args.output.as_os_str() == "-";
    let has_file = matches!(args.format, FormatArg::Csv | FormatArg::Jsonl | FormatArg::Wandb);
    if is_stream && !has_file {
        return refuse("--output -", "name a folder");
    }
    if is_stream && args.json.json {
        return Err(Failure::usage("--json with --output -: the rows are the answer; name a file"));
    }
    Ok(())
}
