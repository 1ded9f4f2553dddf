//! `agrpo forget`: removes a run's records.
//!
//! Deletes no result: a later gc deletes those that no other run needs.

use agrpo_fleet::gc::{self, Tally};
use agrpo_fleet::status::{self, RunState};
use agrpo_spec::RunId;
use agrpo_store::{JobsError, Store};
use serde::Serialize;

use crate::args::ForgetArgs;
use crate::exit::{Exit, Failure};
use crate::output;
use crate::session::Session;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Answer {
    run: RunId,
    dry_run: bool,
    /// Objects of the run's records that were deleted, or would be.
    records: u64,
    /// What no other run reaches; a gc deletes it when it is old enough. `None` if the run's record is
    /// damaged.
    freed: Option<Tally>,
}

/// Forgets a run.
pub(super) fn forget(args: &ForgetArgs, session: &Session) -> Result<Exit, Failure> {
    let answer = session.block_on(async {
        let store = session.existing_store().await?;
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
    let freed = answer
        .freed
        .map_or_else(|| "the results that only this run used".to_owned(), output::objects);
    output::line(format!(
        "run {} {verb}: {}\nagrpo gc frees {freed}\n\nnext:\n  agrpo gc --dry-run{}",
        answer.run,
        output::count(answer.records, "record"),
        session.store_option()
    ))?;
    Ok(Exit::Done)
}

/// Finds a run; a full id works even if the run's record is missing.
async fn find(store: &Store, text: &str) -> Result<RunId, Failure> {
    match text.parse::<RunId>() {
        Ok(run) if store.runs().await?.contains(&run) => Ok(run),
        _ => Ok(store.resolve_run(text).await?),
    }
}

/// Adds a hint about --force to errors about damaged data.
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
