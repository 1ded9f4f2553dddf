//! `agrpo pause`, `resume`, `cancel` and `retry`: control a run from any machine. Writes to the store first, then
//! notifies workers through Redis, if there is one. Waits for no stage.

use agrpo_fleet::{Fleet, control};
use agrpo_spec::RunId;
use agrpo_store::{Control, Hold, JobsError};

use super::prelude::{Exit, Result, Serialize, Session, machine, output};
use crate::args::ControlArgs;

#[derive(Debug, Serialize)]
struct Answer {
    run: RunId,
    done: String,
    #[serde(rename = "workers_told")]
    workers_notified: bool,
    /// Whether nothing was changed, as the run is done.
    #[serde(skip)]
    is_done: bool,
}

pub(super) enum Action {
    Hold(Hold),
    Resume,
    Retry,
}

pub(super) fn control(args: &ControlArgs, session: Session, action: &Action) -> Result<Exit> {
    let session = &session.with_fleet(&args.answer.place);
    let answer = session.on_store(async |store| {
        let run = store.records.resolve_run(&args.run).await?;
        let fleet = reachable(session).await?;
        let fleet = fleet.as_ref();
        let mut is_done = false;
        let done = match action {
            Action::Hold(state) => {
                let by = format!("{}@{}", session.settings.user(), machine::environment().host);
                let record = Control { state: *state, unix_ms: machine::clock()(), by };
                is_done = !control::hold(&store, fleet, run, &record).await?;
                match is_done {
                    true => "is done already; nothing was changed".to_owned(),
                    false => format!("{state}; stages in hand are finished"),
                }
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
        Ok(Answer { run, done, workers_notified: fleet.is_some() && !is_done, is_done })
    })?;
    if !(args.answer.json || answer.workers_notified || answer.is_done || session.names_redis()) {
        output::talk(
            "no Redis was notified: `agrpo run` notices, workers of a fleet see it in the store only when \
             they reconcile; name their Redis with --redis or AGRPO_REDIS",
        );
    }
    output::answer(args.answer.json, &answer, || {
        let (run, store) = (answer.run.short(), session.store_option());
        let next = match action {
            Action::Hold(_) if !answer.is_done => format!("\n\nnext:\n  agrpo resume {run}{store}"),
            _ => String::new(),
        };
        format!("run {run}: {}{next}", answer.done)
    })
}

/// The fleet if its Redis answers; without it only the store is written.
async fn reachable(session: &Session) -> Result<Option<Fleet>> {
    match session.fleet().await {
        Ok(fleet) => Ok(Some(fleet)),
        // This Redis is only the default.
        Err(JobsError::Unavailable(_)) if !session.names_redis() => Ok(None),
        Err(error @ JobsError::Unavailable(_)) => {
            output::talk(format!("workers are not notified: {error}"));
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}
