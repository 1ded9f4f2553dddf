//! `agrpo enqueue`: hands a run to the workers of a fleet.
//!
//! Computes nothing; the store remembers the run, Redis only hints at its stages.

use agrpo_jobs::Fleet;
use agrpo_spec::{Plan, RunId};
use serde::Serialize;

use crate::cli::EnqueueArgs;
use crate::commands::{block_on, create_store, read_run, store_option};
use crate::exit::{Exit, Failure};
use crate::machine;
use crate::output;
use crate::settings::Settings;
use crate::shell;

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
    /// Other runs that have the same name and another content.
    namesakes: Vec<RunId>,
}

/// Queues what can be computed now.
pub(super) fn enqueue(args: &EnqueueArgs, settings: &Settings) -> Result<Exit, Failure> {
    let (run, _) = read_run(&args.run, &args.store, settings)?;
    let name = run.config().name.clone();
    let stages = Plan::total_stages(&run);
    let numerics = run.config().numerics;
    let done = block_on(async {
        let store = create_store(settings, args.store.store.as_deref()).await?;
        let fleet = Fleet::connect(&settings.redis(args.redis.redis.as_deref()).value).await?;
        agrpo_jobs::require(&fleet, &machine::environment().worker).await?;
        Ok(agrpo_jobs::enqueue(&store, &fleet, run).await?)
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
            "note: run {} has the name {:?} as well and asks for something else; this one is {}: call \
             them by their ids",
            other.short(),
            answer.name,
            answer.run.short()
        ));
    }
    output::line(describe(&answer, args, numerics))?;
    Ok(Exit::Done)
}

fn describe(answer: &Answer, args: &EnqueueArgs, numerics: agrpo_spec::Numerics) -> String {
    let store = store_option(args.store.store.as_deref());
    let redis = match args.redis.redis.as_deref() {
        // What is printed may end up in a log; a password must not.
        Some(url) if url.contains('@') => " --redis URL".to_owned(),
        Some(url) => format!(" --redis {}", shell::word(url)),
        None => String::new(),
    };
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
