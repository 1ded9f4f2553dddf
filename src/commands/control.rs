//! `agrpo pause`, `resume`, `cancel` and `retry`: control a run from any machine. Writes to the store first, then
//! notifies workers through Redis, if there is one. Waits for no stage.

use agrpo_fleet::{Fleet, control};
use agrpo_spec::RunId;
use agrpo_store::{Control, Hold, JobsError};

use super::prelude::{Exit, Failure, Serialize, Session, Store, machine, output};
use crate::args::ControlArgs;

#[derive(Debug, Serialize)]
struct Answer {
    run: RunId,
    done: String,
    workers_told: bool,
}

/// What is done to the run.
pub(super) enum Action {
    Hold(Hold),
    Resume,
    Retry,
}

pub(super) fn control(
    args: &ControlArgs,
    session: &Session,
    action: &Action,
) -> Result<Exit, Failure> {
    let answer = session.block_on(async {
        let (store, run, fleet) = open(args, session).await?;
        let fleet = fleet.as_ref();
        let done = match action {
            Action::Hold(state) => {
                let by = format!("{}@{}", session.settings.user(), machine::environment().host);
                let record = Control { state: *state, unix_ms: machine::clock()(), by };
                control::hold(&store, fleet, run, &record).await?;
                format!("{state}; stages in hand are finished")
            }
            Action::Resume => match control::resume(&store, fleet, run).await? {
                true => "resumed".to_owned(),
                false => "was neither paused nor cancelled".to_owned(),
            },
            Action::Retry => match control::retry(&store, fleet, run).await?.len() {
                0 => "has no failed stage".to_owned(),
                1 => "1 failed stage has new attempts".to_owned(),
                count => format!("{count} failed stages have new attempts"),
            },
        };
        Ok(Answer { run, done, workers_told: fleet.is_some() })
    })?;
    if !(args.json.json || answer.workers_told || session.names_redis()) {
        output::talk(
            "no Redis was notified: `agrpo run` notices, workers of a fleet see it in the store only when \
             they reconcile; name their Redis with --redis or AGRPO_REDIS",
        );
    }
    output::answer(args.json.json, &answer, || {
        let (run, store) = (answer.run.short(), session.store_option());
        let next = match action {
            Action::Hold(_) => format!("\n\nnext:\n  agrpo resume {run}{store}"),
            Action::Resume | Action::Retry => String::new(),
        };
        format!("run {run}: {}{next}", answer.done)
    })
}

/// The run, and the fleet if its Redis answers; without it only the store is written.
async fn open(
    args: &ControlArgs,
    session: &Session,
) -> Result<(Store, RunId, Option<Fleet>), Failure> {
    let store = session.existing_store().await?;
    let run = store.records.resolve_run(&args.run).await?;
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
