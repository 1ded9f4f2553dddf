//! `agrpo status`: how far runs are, read from the store alone.
//!
//! Asks no queue and no worker, so it tells the truth even where both are gone.

use agrpo_jobs::status::{self, RunState, RunStatus};
use serde::Serialize;

use crate::cli::StatusArgs;
use crate::commands::{block_on, open_store};
use crate::exit::{Exit, Failure};
use crate::output;
use crate::settings::Settings;
use crate::tally::percent;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Answer {
    runs: Vec<RunStatus>,
}

/// Lists runs.
pub(super) fn status(args: &StatusArgs, settings: &Settings) -> Result<Exit, Failure> {
    let (url, runs) = block_on(async {
        let store = open_store(settings, args.store.store.as_deref()).await?;
        let run = match &args.run {
            Some(text) => Some(store.resolve_run(text).await?),
            None => None,
        };
        Ok((store.url().to_owned(), status::status(&store, run).await?))
    })?;
    if args.json.json {
        output::json(&Answer { runs })?;
    } else if runs.is_empty() {
        output::talk(format!("no runs in {url} yet: agrpo run FILE begins one"));
    } else {
        output::line(table(&runs))?;
    }
    Ok(Exit::Done)
}

fn table(runs: &[RunStatus]) -> String {
    let head = ["run", "name", "state", "iteration", "accuracy", "stages", "failed", "policy"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(runs.iter().map(|run| {
        vec![
            run.run.short(),
            run.name.clone(),
            state(run.state).to_owned(),
            format!("{}/{}", run.iteration, run.iterations),
            accuracy(run.accuracy.base, run.accuracy.latest),
            run.stages.done.to_string(),
            run.stages.failed.to_string(),
            run.policy.map_or_else(|| "-".to_owned(), |policy| policy.short()),
        ]
    }));
    output::table(&rows)
}

fn accuracy(base: Option<f64>, latest: Option<f64>) -> String {
    match (base, latest) {
        (Some(base), Some(latest)) => format!("{} -> {}", percent(base), percent(latest)),
        (None, Some(share)) | (Some(share), None) => percent(share),
        (None, None) => "-".to_owned(),
    }
}

fn state(state: RunState) -> &'static str {
    match state {
        RunState::Running => "running",
        RunState::Paused => "paused",
        RunState::Cancelled => "cancelled",
        RunState::Failed => "failed",
        RunState::Done => "done",
    }
}
