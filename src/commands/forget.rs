//! `agrpo forget`: gives up a run.
//!
//! Removes what is kept about it and no result: those go with a gc, where no other run needs them.

use agrpo_jobs::gc::{self, Tally};
use agrpo_jobs::status::{self, RunState};
use agrpo_jobs::{JobsError, Store};
use agrpo_spec::RunId;
use serde::Serialize;

use crate::cli::ForgetArgs;
use crate::commands::gc::{count, told};
use crate::commands::{block_on, open_store, store_option};
use crate::exit::{Exit, Failure};
use crate::output;
use crate::settings::Settings;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Answer {
    run: RunId,
    dry_run: bool,
    /// Objects of the run's own record that went, or would.
    records: u64,
    /// What no other run reaches; a gc takes it when it is old enough. None where the run's record is
    /// damaged.
    freed: Option<Tally>,
}

/// Forgets a run.
pub(super) fn forget(args: &ForgetArgs, settings: &Settings) -> Result<Exit, Failure> {
    let flag = args.store.store.as_deref();
    let answer = block_on(async {
        let store = open_store(settings, flag).await?;
        let run = find(&store, &args.run).await?;
        if !args.force && !args.dry_run {
            refuse_unfinished(&store, run).await?;
        }
        let freed = match gc::only_of(&store, run).await {
            Ok(freed) => Some(freed),
            Err(JobsError::Data(_) | JobsError::Incompatible(_)) if args.force => None,
            Err(error) => return Err(forced(error.into(), run)),
        };
        let records = match args.dry_run {
            true => store.run_objects(run).await?,
            false => store.forget_run(run).await?,
        };
        Ok(Answer { run, dry_run: args.dry_run, records, freed })
    })?;
    if args.json.json {
        output::json(&answer)?;
        return Ok(Exit::Done);
    }
    let verb = if answer.dry_run { "would be forgotten" } else { "forgotten" };
    let freed = answer.freed.map_or_else(|| "the results that only this run used".to_owned(), told);
    output::line(format!(
        "run {} {verb}: {}\nagrpo gc frees {freed}\n\nnext:\n  agrpo gc --dry-run{}",
        answer.run,
        count(answer.records, "record"),
        store_option(flag)
    ))?;
    Ok(Exit::Done)
}

/// A full id names even a run whose record is gone.
async fn find(store: &Store, text: &str) -> Result<RunId, Failure> {
    match text.parse::<RunId>() {
        Ok(run) if store.runs().await?.contains(&run) => Ok(run),
        _ => Ok(store.resolve_run(text).await?),
    }
}

/// Adds how to forget a run all the same.
fn forced(failure: Failure, run: RunId) -> Failure {
    match failure.exit() {
        Exit::Data => {
            failure.hint(format!("agrpo forget {} --force forgets it as it is", run.short()))
        }
        _ => failure,
    }
}

async fn refuse_unfinished(store: &Store, run: RunId) -> Result<(), Failure> {
    let found = status::status(store, Some(run)).await;
    let found = found.map_err(|error| forced(error.into(), run))?;
    let state = found.first().map(|status| status.state);
    if !matches!(state, Some(RunState::Running | RunState::Paused)) {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "run {} has stages left, and workers may be computing them",
        run.short()
    ))
    .hint(format!("agrpo forget {} --force once no worker computes it", run.short())))
}
