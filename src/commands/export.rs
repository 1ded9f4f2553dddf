//! `agrpo export`: policies and metrics as other programs read them. Reads the store and changes nothing in it. Files
//! appear whole or not at all. Formats are defined in `agrpo-export`; adapters are merged by `agrpo-compute`.

mod model;
mod target;
mod whole_history;

use std::collections::BTreeMap;

use agrpo_export::{history::History, rows, tensorboard};
use serde_json::json;

use self::target::{Folder, Summary, write_file};
use self::whole_history::{not_begun, whole_history};
use super::prelude::{Exit, Failure, Result, Session, Store, cannot, output};
use super::recovery::explained;
use crate::args::{ExportArgs, FormatArg};

pub(super) fn export(args: &ExportArgs, session: &Session) -> Result<Exit> {
    check(args)?;
    let summary = session.on_store(async |store| {
        let written = if args.format.is_model() {
            model::export(&store, args).await.map(Some)
        } else {
            metrics(&store, args).await
        };
        explained(&store, session, written).await
    })?;
    match summary {
        Some(summary) => output::answer(args.answer.json, &summary, || summary.describe()),
        // The rows themselves were the answer.
        None => Ok(Exit::Done),
    }
}

/// Refuses options that have no meaning for the format.
fn check(args: &ExportArgs) -> Result<()> {
    let (is_model, is_stream) = (args.format.is_model(), args.output.as_os_str() == "-");
    let has_file = matches!(args.format, FormatArg::Csv | FormatArg::Jsonl | FormatArg::Wandb);
    let is_cut = args.shard_size.is_some();
    let wrong = [
        (args.iteration.is_some() && !is_model, "--iteration", "every iteration has its row"),
        (args.base.is_some() && !is_model, "--base", "it is for hf, merged and peft"),
        (is_cut && args.format != FormatArg::Hf, "--shard-size", "it is for hf"),
        (is_stream && !has_file, "--output -", "name a folder"),
    ];
    if let Some((_, option, why)) = wrong.into_iter().find(|(is_wrong, ..)| *is_wrong) {
        let format = output::name_of(&args.format);
        return Err(Failure::usage(format!("{option} does not go with --format {format}: {why}")));
    }
    if is_stream && args.answer.json {
        return Err(Failure::usage("--json with --output -: the rows are the answer; name a file"));
    }
    Ok(())
}

/// Writes the run's metrics as a file of rows or a folder of events; `None` where the rows went to standard output.
async fn metrics(store: &Store, args: &ExportArgs) -> Result<Option<Summary>> {
    let whole = whole_history(store, store.records.resolve_run(&args.what).await?).await?;
    let history = History::of(&whole);
    let (run, name) = (whole.run().id(), whole.run().config().name.clone());
    if history.rows.is_empty() {
        return Err(not_begun(&whole));
    }
    let files = if args.format == FormatArg::Tensorboard {
        let mut folder = Folder::begin(&args.output, args.force)?;
        let file = tensorboard::file_name(&history, &run.short().to_string());
        folder.write(&file, &tensorboard::events(&history))?;
        folder.finish(&json!({ "format": args.format, "run": run, "name": name }))?
    } else {
        let bytes = match args.format {
            FormatArg::Csv => rows::csv(&history).map_err(cannot("write CSV"))?,
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
        format: args.format,
        output: args.output.display().to_string(),
        run: Some(run),
        name: Some(name),
        iteration: None,
        policy: None,
        rows: Some(history.rows.len()),
        files,
    }))
}
