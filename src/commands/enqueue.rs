//! `agrpo enqueue`: hands a run to the workers of a fleet.
//!
//! Computes nothing. The store holds the run; Redis only holds hints about its stages.

use agrpo_spec::{Numerics, Plan, RunId};
use serde::Serialize;

use crate::args::EnqueueArgs;
use crate::commands::run_file::read_run;
use crate::exit::{Exit, Failure};
use crate::machine;
use crate::output;
use crate::session::Session;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Answer {
    run: RunId,
    name: String,
    /// Stages that can be computed now.
    queued: usize,
    /// All stages of the run.
    stages: u64,
    already_done: bool,
    /// Other runs that have the same name and a different configuration.
    namesakes: Vec<RunId>,
}

/// Queues what can be computed now.
pub(super) fn enqueue(args: &EnqueueArgs, session: &Session) -> Result<Exit, Failure> {
    let (run, _) = read_run(&args.run, session)?;
    let name = run.config().name.clone();
    let stages = Plan::total_stages(&run);
    let numerics = run.config().numerics;
    let done = session.block_on(async {
        let store = session.writable_store().await?;
        let fleet = session.fleet().await?;
        agrpo_fleet::require(&fleet, &machine::environment().worker).await?;
        Ok(agrpo_fleet::enqueue(&store, &fleet, run).await?)
    })?;
    let answer = Answer {
        run: done.run,
        name,
        queued: done.pending,
        stages,
        already_done: done.already_done,
        namesakes: done.namesakes,
    };
    if args.json.json {
        output::json(&answer)?;
        return Ok(Exit::Done);
    }
    for other in &answer.namesakes {
        output::talk(format!(
            "note: run {} is also named {:?}, with a different configuration; this one is {}: use run ids",
            other.short(),
            answer.name,
            answer.run.short()
        ));
    }
    output::line(describe(&answer, session, numerics))?;
    Ok(Exit::Done)
}

fn describe(answer: &Answer, session: &Session, numerics: Numerics) -> String {
    let (store, redis) = (session.store_option(), session.redis_option());
    let run = answer.run;
    let id = run.short();
    if answer.already_done {
        return format!(
            "run {run}\nall {} stages are done\n\nnext:\n  agrpo status {id}{store}",
            answer.stages
        );
    }
    let device = if numerics.is_cuda() { " --device cuda:0" } else { "" };
    format!(
        "run {run}\n{} queued of {} stages; the others follow as results come in\n\nnext:\n  \
         agrpo worker --numerics {numerics}{device}{store}{redis}\n  agrpo status {id}{store}",
        answer.queued, answer.stages
    )
}
