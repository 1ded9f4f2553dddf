//! `agrpo replay`: computes finished stages again and compares digests. Writes nothing to the store, except the inputs
//! that --rewind recomputes. The process enters the numerics class of what it replays, so the stored spec is read
//! before the first tensor operation.

use agrpo_fleet::own_stages;
use agrpo_fleet::replay::{self, Comparison, ReplayReport};
use agrpo_spec::{Numerics, RunId, StageDigest};

use super::prelude::{ComputeDevice, Exit, Failure, Result, Serialize, Session, Store, output};
use super::{computing::local, recovery};
use crate::{args::ReplayArgs, signals::stop_signal};

#[derive(Debug, Serialize)]
struct Answer {
    identical: bool,
    stages: Vec<Stage>,
}

#[derive(Debug, Serialize)]
struct Stage {
    /// The stage's place in its run; none where one stage was asked for by digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(flatten)]
    report: ReplayReport,
}

struct Request {
    stages: Vec<(Option<String>, StageDigest)>,
    /// Their run, if it is known.
    run: Option<RunId>,
    numerics: Numerics,
}

pub(super) fn replay(args: &ReplayArgs, session: &Session) -> Result<Exit> {
    let request = session.on_store(async |store| match (&args.hash, &args.run) {
        (Some(hash), _) => one_stage(&store, hash).await,
        (None, run) => whole_run(&store, run.as_deref().unwrap_or_default()).await,
    })?;
    let device = ComputeDevice::find(args.device.id, args.threads.count, &session.settings)?;
    device.enter(&session.settings, request.numerics, None)?;
    let stages =
        session.on_store(async |store| compute(&store, &device, request, (args, session)).await)?;
    let differing = stages.iter().filter(|stage| !stage.report.identical).count();
    let identical = differing == 0;
    let text = match (differing, stages.len()) {
        (0, 1) => "identical".to_owned(),
        (0, count) => format!("identical: {count} stages"),
        (_, count) => format!("differs: {differing} of {count} stages"),
    };
    output::answer(args.answer.json, &Answer { identical, stages }, || text)?;
    Ok(if identical { Exit::Done } else { Exit::Differs })
}

async fn one_stage(store: &Store, hash: &str) -> Result<Request> {
    let stage = store.records.resolve_stage(hash).await?;
    let manifest = replay::recorded(store, stage).await?;
    let run = replay::run_of(store, stage).await?;
    Ok(Request { stages: vec![(None, stage)], run, numerics: manifest.spec.numerics() })
}

async fn whole_run(store: &Store, text: &str) -> Result<Request> {
    let id = store.records.resolve_run(text).await?;
    let run = store.records.run(id).await?;
    store.records.require_own_versions(id).await?;
    let own = own_stages(store, &run).await?;
    if own.is_empty() {
        return Err(Failure::usage(format!("run {id} has no finished stage to replay")));
    }
    let stages = own.into_iter().map(|(key, stage)| (Some(key.to_string()), stage));
    Ok(Request { stages: stages.collect(), run: Some(id), numerics: run.config().numerics })
}

async fn compute(
    store: &Store,
    device: &ComputeDevice,
    request: Request,
    (args, session): (&ReplayArgs, &Session),
) -> Result<Vec<Stage>> {
    let stop = stop_signal(|| output::talk("finishing the stage in hand"))?;
    let execute = device.execute(1);
    let mut done = vec![];
    for (key, stage) in request.stages {
        if *stop.borrow() {
            let done = output::count(done.len() as u64, "stage");
            let why = format!("stopped after {done}, as reported above");
            return Err(Failure::new(Exit::Interrupted, why));
        }
        if args.rewind {
            local(store, device, None).mend(request.run, stage).await?;
        }
        let report = match replay::replay(store, stage, &execute).await {
            Err(error) => {
                let asked = Some((request.run, stage));
                return Err(recovery::explain(store, session, asked, error.into()).await);
            }
            Ok(report) => report,
        };
        if !args.answer.json {
            describe(key.as_deref(), &report)?;
        }
        done.push(Stage { key, report });
    }
    Ok(done)
}

/// A line for the stage, and one for each output.
fn describe(key: Option<&str>, report: &ReplayReport) -> Result<()> {
    output::line(format!("{} {}", key.unwrap_or(report.kind.name()), report.stage))?;
    report.outputs.iter().try_for_each(|found| output::line(compared("", found)))?;
    report.row.iter().try_for_each(|row| output::line(format!("  differs    {row}")))?;
    // Metrics are many and follow from the outputs: only those that differ are printed.
    let metrics = report.metrics.iter().filter(|metric| !metric.identical);
    metrics.map(|found| compared("metric ", found)).try_for_each(output::line)
}

fn compared<T: Copy + ToString>(what: &str, found: &Comparison<T>) -> String {
    let shown = |value: Option<T>| value.map_or_else(|| "none".to_owned(), |v| v.to_string());
    let (name, recorded) = (&found.name, shown(found.recorded));
    if found.identical {
        return format!("  identical  {what}{name}  {recorded}");
    }
    let recomputed = shown(found.recomputed);
    format!("  differs    {what}{name}  {recorded} recorded, {recomputed} recomputed")
}
