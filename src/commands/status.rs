//! `agrpo status`: the progress of runs, read from the store; with --workers the workers, read from Redis. Needs
//! neither queue nor workers for runs, so it is right even where both are gone.

use std::{collections::BTreeMap, time::Duration};

use agrpo_fleet::WorkerInfo;
use agrpo_fleet::status::{self, RunState, RunStatus};
use agrpo_spec::one_line;
use agrpo_store::Failure as StageFailure;

use super::prelude::{Exit, Result, Serialize, Session, machine, output};
use super::resolve;
use crate::args::StatusArgs;

/// Most unreadable records of a run that are named.
const NAMED: usize = 5;

#[derive(Debug, Serialize)]
struct Answer {
    runs: Vec<RunStatus>,
    /// The failure records of the one run that was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failures: Vec<StageFailure>,
}

pub(super) fn status(args: &StatusArgs, session: &Session) -> Result<Exit> {
    if args.workers {
        return workers(args, session);
    }
    let (url, runs, failures) = session.on_store(async |store| {
        let run = resolve::run(&store, args.run.as_deref()).await?;
        let failures = match run {
            Some(run) => store.records.readable_failures(run).await?.0,
            None => vec![],
        };
        Ok((store.url().to_owned(), status::status(&store, run).await?, failures))
    })?;
    if args.answer.json {
        output::json(&Answer { runs, failures })?;
    } else if runs.is_empty() {
        output::talk(format!("no runs in {url} yet: agrpo run FILE begins one"));
    } else {
        output::line(table(&runs))?;
        if let [RunStatus { stages, .. }] = &*runs
            && stages.computed_twice + stages.repaired > 0
        {
            output::line(format!(
                "\ncomputed twice: {}; made again after a loss: {}",
                stages.computed_twice, stages.repaired
            ))?;
        }
        for failure in &failures {
            output::line(format!("\n{}", describe(failure)))?;
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
    let dash = || "-".to_owned();
    let share = |share: Option<f64>| share.map(output::percent);
    let rows = runs.iter().map(|run| {
        [
            run.run.short(),
            run.name.clone(),
            match &run.failed_at {
                Some(failed) if run.state == RunState::Failed => {
                    format!("failed at {}", failed.key)
                }
                _ => output::state(run.state),
            },
            format!("{}/{}", run.iteration, run.iterations),
            output::change(share(run.accuracy.base), share(run.accuracy.later()))
                .unwrap_or_else(dash),
            run.stages.done.to_string(),
            run.stages.failed.to_string(),
            run.policy.map_or_else(dash, |policy| policy.short()),
        ]
    });
    let mut lines = vec![output::table(head, rows)];
    for run in runs {
        let (id, records) = (run.run.short(), &run.unreadable_records);
        let failed = run.failed_at.iter().filter(|_| run.state == RunState::Failed);
        let mut notes: Vec<String> = failed.map(|failed| failed.error.clone()).collect();
        notes.extend(run.partial_evaluations.iter().map(|partial| {
            format!("evaluation of {}: {partial}", output::policy(partial.iteration))
        }));
        notes.extend(run.incompatible.clone());
        notes.extend(run.unreadable.iter().map(|why| format!("unreadable: {why}")));
        notes.extend(records.iter().take(NAMED).map(ToString::to_string));
        if let Some(more @ 1..) = records.len().checked_sub(NAMED) {
            let more = output::count(more as u64, "more record");
            notes.push(format!("{more} cannot be read: agrpo verify {id}"));
        }
        lines.extend(notes.iter().map(|note| format!("{id}: {note}")));
    }
    lines.join("\n")
}

/// A failure record: what failed, where, and what was logged before.
fn describe(failure: &StageFailure) -> String {
    let StageFailure { key, stage, error, remedy, worker, attempts, environment, log, .. } =
        failure;
    let mut machine = environment.cpu.clone();
    if let Some(gpu) = &environment.gpu {
        machine = format!("{gpu}; {machine}");
    }
    let rows = [
        ("failed at", key.to_string()),
        ("stage", stage.to_string()),
        ("error", error.clone()),
        ("remedy", remedy.to_string()),
        ("attempts", attempts.to_string()),
        ("worker", worker.clone()),
        ("machine", format!("{} ({machine})", environment.host)),
        ("program", format!("agrpo {}, libtorch {}", environment.agrpo, environment.libtorch)),
    ];
    let title = (!log.is_empty()).then_some("last log lines".to_owned());
    let log = title.into_iter().chain(log.iter().map(|line| format!("  {line}")));
    std::iter::once(output::fields(&rows)).chain(log).collect::<Vec<_>>().join("\n")
}

/// The workers of a fleet as they report them; the entry of a silent one expires.
fn workers(args: &StatusArgs, session: &Session) -> Result<Exit> {
    let (place, workers) = session.block_on(async {
        let fleet = session.fleet().await?;
        Ok((fleet.address().to_owned(), agrpo_fleet::workers(&fleet).await?))
    })?;
    if args.answer.json {
        output::json(&BTreeMap::from([("workers", workers)]))?;
    } else if workers.is_empty() {
        output::talk(format!("no worker at Redis {place}: agrpo worker starts one"));
    } else {
        output::line(workers_table(&workers, machine::clock()()))?;
    }
    Ok(Exit::Done)
}

fn workers_table(workers: &[WorkerInfo], now: u64) -> String {
    let head = ["worker", "device", "class", "up", "seen", "done", "run", "stage", "since"];
    let span = |ms: u64| output::short_duration(Duration::from_millis(ms));
    let rows = workers.iter().map(|worker| {
        let dashes = || ["-", "-", "-"].map(str::to_owned);
        let [run, stage, since] = worker.computing.as_ref().map_or_else(dashes, |stage| {
            let since = span(now.saturating_sub(stage.since_unix_ms));
            [stage.run.short(), stage.key.to_string(), since]
        });
        [
            // Any client of Redis can write these texts.
            one_line(&worker.name),
            one_line(&worker.device),
            worker.class.to_string(),
            span(now.saturating_sub(worker.since_unix_ms)),
            format!("{} ago", span(worker.seen_ms_ago)),
            worker.stages_done.to_string(),
            run,
            stage,
            since,
        ]
    });
    output::table(head, rows)
}

#[cfg(test)]
mod tests {
    use agrpo_spec::{Environment, Plan, Run};
    use agrpo_store::Remedy;

    use super::*;

    #[test]
    fn a_person_reads_what_failed_where_and_what_was_logged() {
        let text = include_str!("../../jobs/runs/smoke.toml");
        let plan = Plan::new(Run::parse(text).unwrap());
        let (&key, spec) = plan.pending().iter().next().unwrap();
        let failure = StageFailure {
            key,
            stage: spec.digest(),
            error: "sft stage failed: out of memory".to_owned(),
            remedy: Remedy::Elsewhere,
            worker: "node-7-1".to_owned(),
            attempts: 3,
            unix_ms: 1,
            environment: Environment {
                agrpo: "0.1.0".to_owned(),
                libtorch: "2.11.0".to_owned(),
                cpu: "a processor".to_owned(),
                gpu: Some("a GPU".to_owned()),
                host: "node-7".to_owned(),
                ..Environment::default()
            },
            log: vec!["a first line".to_owned(), "a second line".to_owned()],
        };
        let shown = describe(&failure).replace(&failure.stage.to_string(), "STAGE");
        insta::assert_snapshot!(shown, @r"
        failed at  sft-000000
        stage      STAGE
        error      sft stage failed: out of memory
        remedy     try again elsewhere
        attempts   3
        worker     node-7-1
        machine    node-7 (a GPU; a processor)
        program    agrpo 0.1.0, libtorch 2.11.0
        last log lines
          a first line
          a second line
        ");
    }
}
