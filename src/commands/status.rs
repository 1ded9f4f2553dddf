//! `agrpo status`: the progress of runs, read from the store; with --workers the workers, read from Redis.
//!
//! Needs neither queue nor workers for runs, so it is right even where both are gone.

mod failure;
mod workers;

use agrpo_fleet::status::{self, RunState, RunStatus};
use serde::Serialize;

use crate::args::StatusArgs;
use crate::exit::{Exit, Failure};
use crate::output;
use crate::session::Session;

/// Most unreadable records of a run that are named.
const NAMED: usize = 5;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Answer {
    runs: Vec<RunStatus>,
    /// The failure records of the one run that was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failures: Vec<agrpo_store::Failure>,
}

/// Lists runs.
pub(super) fn status(args: &StatusArgs, session: &Session) -> Result<Exit, Failure> {
    if args.workers {
        return workers::list(args, session);
    }
    let (url, runs, failures) = session.block_on(async {
        let store = session.existing_store().await?;
        let run = match &args.run {
            Some(text) => Some(store.resolve_run(text).await?),
            None => None,
        };
        let failures = match run {
            Some(run) => store.readable_failures(run).await?.0,
            None => vec![],
        };
        Ok((store.url().to_owned(), status::status(&store, run).await?, failures))
    })?;
    if args.json.json {
        output::json(&Answer { runs, failures })?;
    } else if runs.is_empty() {
        output::talk(format!("no runs in {url} yet: agrpo run FILE begins one"));
    } else {
        output::line(table(&runs))?;
        if let [RunStatus { stages, .. }] = &*runs
            && stages.computed_twice + stages.rewound > 0
        {
            output::line(format!(
                "\ncomputed twice: {}; made again after a loss: {}",
                stages.computed_twice, stages.rewound
            ))?;
        }
        for failure in &failures {
            output::line(format!("\n{}", failure::describe(failure)))?;
        }
        if let [run] = &*runs
            && run.state == RunState::Failed
        {
            let store = session.store_option();
            output::line(format!("\nnext:\n  agrpo retry {}{store}", run.run.short()))?;
        }
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
            match &run.failed_at {
                Some(failed) if run.state == RunState::Failed => {
                    format!("failed at {}", failed.key)
                }
                _ => state(run.state).to_owned(),
            },
            format!("{}/{}", run.iteration, run.iterations),
            accuracy(run.accuracy.base, run.accuracy.latest),
            run.stages.done.to_string(),
            run.stages.failed.to_string(),
            run.policy.map_or_else(|| "-".to_owned(), |policy| policy.short()),
        ]
    }));
    let errors = runs.iter().filter(|run| run.state == RunState::Failed).filter_map(|run| {
        let failed = run.failed_at.as_ref()?;
        Some(format!("\n{}: {}", run.run.short(), failed.error))
    });
    let foreign = runs.iter().filter_map(|run| {
        let why = run.foreign.as_ref()?;
        Some(format!("\n{}: {why}", run.run.short()))
    });
    let unreadable = runs.iter().filter_map(|run| {
        let why = run.unreadable.as_ref()?;
        Some(format!("\n{}: unreadable: {why}", run.run.short()))
    });
    let lost = runs.iter().flat_map(|run| {
        let (id, records) = (run.run.short(), &run.unreadable_records);
        let named = records.iter().take(NAMED).map(move |record| format!("\n{id}: {record}"));
        let more = records.len().saturating_sub(NAMED);
        let more = (more > 0).then(|| {
            format!("\n{0}: {more} more records cannot be read: agrpo verify {0}", run.run.short())
        });
        named.chain(more)
    });
    output::table(&rows) + &errors.chain(foreign).chain(unreadable).chain(lost).collect::<String>()
}

fn accuracy(base: Option<f64>, latest: Option<f64>) -> String {
    match (base, latest) {
        (Some(base), Some(latest)) => {
            format!("{} -> {}", output::percent(base), output::percent(latest))
        }
        (None, Some(share)) | (Some(share), None) => output::percent(share),
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
        RunState::Unreadable => "unreadable",
    }
}
