//! `agrpo enqueue`: hands a run to the workers of a fleet. The store holds it, Redis only hints. Computes nothing.

use agrpo_fleet::Enqueued;
use agrpo_spec::{Numerics, Plan, RunId};

use super::prelude::{Exit, Result, Serialize, Session, machine, output};
use super::run_file::{fetch_run, read_sources};
use crate::args::EnqueueArgs;

#[derive(Debug, Serialize)]
struct Answer {
    run: RunId,
    name: String,
    /// Stages that can be computed now.
    queued: usize,
    stages: u64,
    already_done: bool,
    /// Other runs that have the same name and a different configuration.
    namesakes: Vec<RunId>,
}

pub(super) fn enqueue(args: &EnqueueArgs, session: &Session) -> Result<Exit> {
    let (named, text) = read_sources(&args.run, &session.settings)?;
    let (run, _) = fetch_run(&args.run, (&named, text), session)?;
    let (name, numerics) = (run.config().name.clone(), run.config().numerics);
    let stages = Plan::total_stages(&run);
    let done = session.block_on(async {
        let store = session.writable_store().await?;
        let fleet = session.fleet().await?;
        agrpo_fleet::require(&fleet, &machine::environment().worker).await?;
        Ok(agrpo_fleet::enqueue(&store, &fleet, run).await?)
    })?;
    let Enqueued { run, pending: queued, already_done, namesakes } = done;
    let answer = Answer { run, name, queued, stages, already_done, namesakes };
    for other in answer.namesakes.iter().filter(|_| !args.answer.json) {
        output::talk(format!(
            "note: run {} is also named {:?}, with a different configuration; this one is {}: use run ids",
            other.short(),
            answer.name,
            answer.run.short()
        ));
    }
    output::answer(args.answer.json, &answer, || describe(&answer, session, numerics))
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
