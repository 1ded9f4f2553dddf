//! A run's metrics, as a file of rows or a folder of events.

use std::collections::BTreeMap;

use agrpo_export::history::History;
use agrpo_export::{rows, tensorboard};
use agrpo_store::Store;
use serde_json::json;

use super::summary::Summary;
use super::target::{Folder, write_file};
use super::whole_history::{not_begun, whole_history};
use crate::args::{ExportArgs, FormatArg};
use crate::exit::{Exit, Failure};
use crate::output;

/// Writes them; `None` where the rows went to standard output.
pub(super) async fn export(store: &Store, args: &ExportArgs) -> Result<Option<Summary>, Failure> {
    let whole = whole_history(store, store.resolve_run(&args.what).await?).await?;
    let history = History::of(&whole);
    let (run, name) = (whole.run().id(), whole.run().config().name.clone());
    if history.rows.is_empty() {
        return Err(not_begun(&whole));
    }
    let files = if args.format == FormatArg::Tensorboard {
        let mut folder = Folder::begin(&args.output, args.force)?;
        let file = tensorboard::file_name(&history, &run.short().to_string());
        folder.write(&file, &tensorboard::events(&history))?;
        folder.finish(&json!({ "format": args.format.name(), "run": run, "name": name }))?
    } else {
        let failed = |error| Failure::new(Exit::Unexpected, format!("cannot write CSV: {error}"));
        let bytes = match args.format {
            FormatArg::Csv => rows::csv(&history).map_err(failed)?,
            FormatArg::Wandb => rows::wandb(&history),
            _ => rows::jsonl(&history),
        };
        if args.output.as_os_str() == "-" {
            output::bytes(&bytes)?;
            return Ok(None);
        }
        let entry = write_file(&args.output, &bytes, args.force)?;
        let file = args.output.file_name().unwrap_or_default().to_string_lossy().into_owned();
        BTreeMap::from([(file, entry)])
    };
    Ok(Some(Summary {
        format: args.format.name(),
        output: args.output.display().to_string(),
        run: Some(run),
        name: Some(name),
        iteration: None,
        policy: None,
        rows: Some(history.rows.len()),
        files,
    }))
}
