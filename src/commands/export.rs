//! `agrpo export`: policies and metrics as other programs read them.
//!
//! Reads the store and changes nothing in it. What is written appears whole or not at all; formats are
//! `agrpo-export`'s affair, merging that of the stages.

mod metrics;
mod model;
mod target;

use std::collections::BTreeMap;

use agrpo_jobs::Store;
use agrpo_spec::{ArtifactDigest, FolderEntry, RunId};
use agrpo_view::story::Story;
use serde::Serialize;

use crate::cli::{ExportArgs, FormatArg};
use crate::commands::gc::count;
use crate::commands::lost;
use crate::commands::verify::move_away;
use crate::commands::{block_on, open_store};
use crate::exit::{Exit, Failure};
use crate::output;
use crate::settings::Settings;

/// What was written.
#[derive(Debug, Serialize)]
struct Summary {
    format: String,
    output: String,
    run: Option<RunId>,
    name: Option<String>,
    iteration: Option<u32>,
    policy: Option<ArtifactDigest>,
    /// Iterations that have a row.
    rows: Option<usize>,
    files: BTreeMap<String, FolderEntry>,
}

/// Writes what was asked for, and says what it was.
pub(super) fn export(args: &ExportArgs, settings: &Settings) -> Result<Exit, Failure> {
    check(args)?;
    let summary = block_on(async {
        let store = open_store(settings, args.store.store.as_deref()).await?;
        let written = if args.format.is_model() {
            model::export(&store, args).await.map(Some)
        } else {
            metrics::export(&store, args).await
        };
        lost::explained(&store, args.store.store.as_deref(), written).await
    })?;
    match summary {
        Some(summary) if args.json.json => output::json(&summary)?,
        Some(summary) => output::line(summary.describe())?,
        // The rows themselves were the answer.
        None => {}
    }
    Ok(Exit::Done)
}

/// Options that mean nothing to a format are mistakes.
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

/// A run's story, of which nothing is missing.
async fn whole_story(store: &Store, run: RunId) -> Result<Story, Failure> {
    store.require_own_versions(run).await?;
    let story = Story::read(store, run).await?;
    let name = &story.run().config().name;
    let evaluated =
        story.stages().keys().filter(|key| key.kind == agrpo_spec::StageKind::Evaluation);
    let lost = evaluated.filter(|key| !story.evaluations().contains_key(&key.iteration)).count();
    let (foreign, damaged): (Vec<_>, Vec<_>) =
        story.unreadable_stages().partition(|record| record.is_incompatible);
    let mut odd = 0;
    for record in &damaged {
        odd += u64::from(store.is_no_file(&record.object).await?);
    }
    let (foreign, damaged) = (foreign.len() as u64, (damaged.len() + lost) as u64);
    if damaged + foreign == 0 {
        return Ok(story);
    }
    let told = |(number, what): (u64, &str)| {
        let verb = if number == 1 { "is" } else { "are" };
        (number > 0).then(|| format!("{} {verb} {what}", count(number, "record")))
    };
    let told =
        [(damaged, "missing or corrupt"), (foreign, "of another version of agrpo")].map(told);
    let told = told.into_iter().flatten().collect::<Vec<_>>().join(" and ");
    let (run, url) = (run.short(), store.url());
    let message = format!("run {run} ({name}): {told} in {url}; an export would be incomplete");
    let mut failure =
        Failure::new(Exit::Data, message).hint(format!("agrpo verify {run} lists them"));
    if odd > 0 {
        failure = failure.hint(move_away(url));
    }
    if damaged > odd {
        failure = failure.hint("agrpo run FILE --repair, with the run's file, computes them again");
    }
    if foreign > 0 {
        failure = failure.hint("use the newest version of agrpo that works on this store");
    }
    Err(failure)
}

impl Summary {
    fn describe(&self) -> String {
        let mut head = vec![vec!["wrote".to_owned(), format!("{} ({})", self.output, self.format)]];
        let mut row = |name: &str, value: String| head.push(vec![name.to_owned(), value]);
        if let (Some(run), Some(name)) = (self.run, &self.name) {
            row("run", format!("{run} ({name})"));
        }
        if let Some(policy) = self.policy {
            let iteration = self.iteration.map(|n| match n {
                0 => " (base)".to_owned(),
                n => format!(" (iteration {n})"),
            });
            row("policy", format!("{policy}{}", iteration.unwrap_or_default()));
        }
        if let Some(rows) = self.rows {
            row("rows", rows.to_string());
        }
        let file = |(name, entry): (&String, &FolderEntry)| {
            vec![entry.digest.to_string(), name.clone(), output::size(entry.size)]
        };
        let files: Vec<_> = self.files.iter().map(file).collect();
        format!("{}\n{}", output::table(&head), output::table(&files))
    }
}
