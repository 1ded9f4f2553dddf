//! `agrpo gc`: deletes what no run needs any more; what may be deleted is decided in `agrpo-fleet`. And `agrpo forget`:
//! removes a run's records. Deletes no result: a later gc deletes those that no other run needs.

use std::time::Duration;

use agrpo_fleet::gc::{self, GcOptions, GcReport, Totals};
use agrpo_fleet::status::{self, RunState};
use agrpo_spec::RunId;
use agrpo_store::JobsError;

use super::prelude::{Exit, Failure, Result, Serialize, Session, Store, output};
use crate::args::{ForgetArgs, GcArgs};

/// The shortest grace that is safe beside workers: much longer than storing one stage's results takes.
const SAFE: Duration = Duration::from_secs(3600);

pub(super) fn gc(args: &GcArgs, session: &Session) -> Result<Exit> {
    if args.grace < SAFE && !args.dry_run {
        output::talk("a grace period below 1h is safe only while no worker runs on this store");
    }
    let options = GcOptions { grace: args.grace, dry_run: args.dry_run };
    let report = session.on_store(async |store| Ok(gc::gc(&store, options).await?))?;
    output::answer(args.answer.json, &report, || describe(&report))
}

fn describe(report: &GcReport) -> String {
    let verb = if report.dry_run { "would go" } else { "deleted" };
    let swept = report.swept.iter();
    let mut rows: Vec<_> = swept
        .map(|(kind, tally)| {
            (output::name_of(kind), format!("{verb}: {}", output::objects(*tally)))
        })
        .collect();
    if rows.is_empty() {
        rows.push(("nothing".to_owned(), verb.to_owned()));
    }
    rows.push(("too young".to_owned(), output::objects(report.young)));
    let reach = if report.runs == 1 { "run reaches" } else { "runs reach" };
    let kept = format!("{}, which {} {reach}", output::objects(report.retained), report.runs);
    rows.push(("kept".to_owned(), kept));
    rows.extend(report.odd.iter().map(|odd| {
        ("left alone".to_owned(), format!("{} is {}, expected a regular file", odd.name, odd.kind))
    }));
    output::fields(&rows)
}

#[derive(Debug, Serialize)]
struct Forgotten {
    run: RunId,
    dry_run: bool,
    /// Objects of the run's records that were deleted, or would be.
    records: u64,
    /// What no other run reaches, for a gc to delete when it is old enough; `None` if the run's record is damaged.
    freed: Option<Totals>,
}

pub(super) fn forget(args: &ForgetArgs, session: &Session) -> Result<Exit> {
    let answer = session.on_store(async |store| {
        let run = find(&store, &args.run).await?;
        // Until the run is forgotten.
        let _lock = match args.dry_run {
            true => None,
            false => Some(store.records.lock_run(run).await?.ok_or_else(|| in_use(run))?),
        };
        if !args.force && !args.dry_run {
            refuse_unfinished(&store, run).await?;
        }
        let freed = match gc::only_of(&store, run).await {
            Ok(freed) => Some(freed),
            Err(JobsError::Data(_) | JobsError::Incompatible(_)) if args.force => None,
            Err(error) => return Err(forced(error, run)),
        };
        let records = match args.dry_run {
            true => store.records.run_objects(run).await?,
            false => store.records.forget_run(run).await?,
        };
        Ok(Forgotten { run, dry_run: args.dry_run, records, freed })
    })?;
    output::answer(args.answer.json, &answer, || {
        let verb = if answer.dry_run { "would be forgotten" } else { "forgotten" };
        let freed = answer
            .freed
            .map_or_else(|| "the results that only this run used".to_owned(), output::objects);
        format!(
            "run {} {verb}: {}\nagrpo gc frees {freed}\n\nnext:\n  agrpo gc --dry-run{}",
            answer.run,
            output::count(answer.records, "record"),
            session.store_option()
        )
    })
}

/// Finds a run; a full id works even if the run's record is missing.
async fn find(store: &Store, text: &str) -> Result<RunId> {
    match text.parse::<RunId>() {
        Ok(run) if store.records.runs().await?.contains(&run) => Ok(run),
        _ => Ok(store.records.resolve_run(text).await?),
    }
}

/// Adds a hint about --force to errors about damaged data.
fn forced(error: JobsError, run: RunId) -> Failure {
    let hint = format!("agrpo forget {} --force forgets it as it is", run.short());
    Failure::from(error).hint_on(Exit::Data, hint)
}

/// The refusal of a run that another process computes, forced or not: it would write what belongs to no run.
fn in_use(run: RunId) -> Failure {
    let run = run.short();
    Failure::usage(format!("run {run} is being computed by another process of this store"))
        .hint(format!("stop that process, or wait for its end; then agrpo forget {run}"))
}

async fn refuse_unfinished(store: &Store, run: RunId) -> Result<()> {
    let found = status::status(store, Some(run)).await;
    let found = found.map_err(|error| forced(error, run))?;
    if !found.iter().any(|run| matches!(run.state, RunState::Running | RunState::Paused)) {
        return Ok(());
    }
    let run = run.short();
    Err(Failure::usage(format!("run {run} has stages left, and workers may be computing them"))
        .hint(format!("agrpo forget {run} --force once no worker computes it")))
}
