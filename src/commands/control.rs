//! `agrpo pause`, `resume`, `cancel` and `retry`: what becomes of a run, from anywhere.
//!
//! The store is told first, then the workers through Redis, if there is one. Waits for no stage.

use agrpo_jobs::{Control, Fleet, Hold, JobsError, Store, control};
use agrpo_spec::RunId;
use serde::Serialize;

use crate::cli::ControlArgs;
use crate::commands::{block_on, open_store, store_option};
use crate::exit::{Exit, Failure};
use crate::machine;
use crate::output;
use crate::settings::Settings;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Answer {
    run: RunId,
    /// What was done.
    done: String,
    /// Whether workers were told.
    workers_told: bool,
}

/// Pauses or cancels a run.
pub(super) fn hold(args: &ControlArgs, settings: &Settings, state: Hold) -> Result<Exit, Failure> {
    block_on(async {
        let (store, run, fleet) = open(args, settings).await?;
        let by = format!("{}@{}", settings.user(), machine::environment().host);
        let record = Control { state, unix_ms: machine::clock()(), by };
        control::hold(&store, fleet.as_ref(), run, &record).await?;
        let store = store_option(args.store.store.as_deref());
        let next = Some(format!("agrpo resume {}{store}", run.short()));
        answer(args, run, &format!("{state}; stages in hand are finished"), fleet.is_some(), next)
    })
}

/// Lets a run go on.
pub(super) fn resume(args: &ControlArgs, settings: &Settings) -> Result<Exit, Failure> {
    block_on(async {
        let (store, run, fleet) = open(args, settings).await?;
        let held = control::resume(&store, fleet.as_ref(), run).await?;
        let done = if held { "resumed" } else { "was neither paused nor cancelled" };
        answer(args, run, done, fleet.is_some(), None)
    })
}

/// Gives failed stages new attempts.
pub(super) fn retry(args: &ControlArgs, settings: &Settings) -> Result<Exit, Failure> {
    block_on(async {
        let (store, run, fleet) = open(args, settings).await?;
        let done = match control::retry(&store, fleet.as_ref(), run).await?.len() {
            0 => "has no failed stage".to_owned(),
            1 => "1 failed stage has new attempts".to_owned(),
            count => format!("{count} failed stages have new attempts"),
        };
        answer(args, run, &done, fleet.is_some(), None)
    })
}

/// The run, and the Redis where one answers: workers that nobody can reach cannot be told.
async fn open(
    args: &ControlArgs,
    settings: &Settings,
) -> Result<(Store, RunId, Option<Fleet>), Failure> {
    let store = open_store(settings, args.store.store.as_deref()).await?;
    let run = store.resolve_run(&args.run).await?;
    let redis = settings.redis(args.redis.redis.as_deref());
    match Fleet::connect(&redis.value).await {
        Ok(fleet) => Ok((store, run, Some(fleet))),
        // Nobody asked for this one: it is only the default.
        Err(JobsError::Unavailable(_)) if !redis.given => Ok((store, run, None)),
        Err(error @ JobsError::Unavailable(_)) => {
            output::talk(format!("workers are not told: {error}"));
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
            "no Redis was told: `agrpo run` obeys, workers of a fleet learn of it from the store only \
             when they sweep; name theirs with --redis or AGRPO_REDIS",
        );
    }
    if let Some(next) = next {
        output::line(format!("\nnext:\n  {next}"))?;
    }
    Ok(Exit::Done)
}
