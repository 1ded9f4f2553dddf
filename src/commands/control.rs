//! `agrpo pause`, `resume`, `cancel` and `retry`: control a run from any machine.
//!
//! Writes to the store first, then notifies workers through Redis, if there is one. Waits for no stage.

use agrpo_fleet::{Fleet, control};
use agrpo_spec::RunId;
use agrpo_store::{Control, Hold, JobsError, Store};
use serde::Serialize;

use crate::args::ControlArgs;
use crate::exit::{Exit, Failure};
use crate::machine;
use crate::output;
use crate::session::Session;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Answer {
    run: RunId,
    /// What was done.
    done: String,
    /// Whether workers were notified.
    workers_told: bool,
}

/// Pauses or cancels a run.
pub(super) fn hold(args: &ControlArgs, session: &Session, state: Hold) -> Result<Exit, Failure> {
    session.block_on(async {
        let (store, run, fleet) = open(args, session).await?;
        let by = format!("{}@{}", session.settings.user(), machine::environment().host);
        let record = Control { state, unix_ms: machine::clock()(), by };
        control::hold(&store, fleet.as_ref(), run, &record).await?;
        let store = session.store_option();
        let next = Some(format!("agrpo resume {}{store}", run.short()));
        answer(args, run, &format!("{state}; stages in hand are finished"), fleet.is_some(), next)
    })
}

/// Resumes a run.
pub(super) fn resume(args: &ControlArgs, session: &Session) -> Result<Exit, Failure> {
    session.block_on(async {
        let (store, run, fleet) = open(args, session).await?;
        let held = control::resume(&store, fleet.as_ref(), run).await?;
        let done = if held { "resumed" } else { "was neither paused nor cancelled" };
        answer(args, run, done, fleet.is_some(), None)
    })
}

/// Gives failed stages new attempts.
pub(super) fn retry(args: &ControlArgs, session: &Session) -> Result<Exit, Failure> {
    session.block_on(async {
        let (store, run, fleet) = open(args, session).await?;
        let done = match control::retry(&store, fleet.as_ref(), run).await?.len() {
            0 => "has no failed stage".to_owned(),
            1 => "1 failed stage has new attempts".to_owned(),
            count => format!("{count} failed stages have new attempts"),
        };
        answer(args, run, &done, fleet.is_some(), None)
    })
}

/// The run, and the fleet if its Redis answers; without it only the store is written.
async fn open(
    args: &ControlArgs,
    session: &Session,
) -> Result<(Store, RunId, Option<Fleet>), Failure> {
    let store = session.existing_store().await?;
    let run = store.resolve_run(&args.run).await?;
    match session.fleet().await {
        Ok(fleet) => Ok((store, run, Some(fleet))),
        // This Redis is only the default.
        Err(JobsError::Unavailable(_)) if !session.names_redis() => Ok((store, run, None)),
        Err(error @ JobsError::Unavailable(_)) => {
            output::talk(format!("workers are not notified: {error}"));
            Ok((store, run, None))
        }
        Err(error) => Err(error.into()),
    }
}

fn answer(
    args: &ControlArgs,
    run: RunId,
    done: &str,
    workers_told: bool,
    next: Option<String>,
) -> Result<Exit, Failure> {
    if args.json.json {
        output::json(&Answer { run, done: done.to_owned(), workers_told })?;
        return Ok(Exit::Done);
    }
    output::line(format!("run {}: {done}", run.short()))?;
    if !workers_told {
        output::talk(
            "no Redis was notified: `agrpo run` obeys, workers of a fleet see it in the store only when \
             they reconcile; name their Redis with --redis or AGRPO_REDIS",
        );
    }
    if let Some(next) = next {
        output::line(format!("\nnext:\n  {next}"))?;
    }
    Ok(Exit::Done)
}
