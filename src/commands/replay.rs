//! `agrpo replay`: computes finished stages again and compares digests.
//!
//! Writes nothing to the store, except the inputs that --rewind recomputes. The process enters the numerics class
//! of what it replays, so the stored spec is read before the first tensor operation.

use agrpo_fleet::own_stages;
use agrpo_fleet::replay::{self, ReplayReport};
use agrpo_spec::{ArtifactDigest, Numerics, RunId, StageDigest};
use agrpo_store::Store;
use serde::Serialize;

use crate::args::ReplayArgs;
use crate::commands::recovery;
use crate::device::ComputeDevice;
use crate::exit::{Exit, Failure};
use crate::machine;
use crate::output;
use crate::session::Session;
use crate::signals::stop_signal;

/// What `--json` prints.
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

/// What is to be replayed.
struct Request {
    stages: Vec<(Option<String>, StageDigest)>,
    /// Their run, if it is known.
    run: Option<RunId>,
    numerics: Numerics,
}

/// Replays one stage or all of a run.
pub(super) fn replay(args: &ReplayArgs, session: &Session) -> Result<Exit, Failure> {
    let request = session.block_on(async {
        let store = session.existing_store().await?;
        match (&args.hash, &args.run) {
            (Some(hash), _) => one_stage(&store, hash).await,
            (None, run) => whole_run(&store, run.as_deref().unwrap_or_default()).await,
        }
    })?;
    let device = ComputeDevice::find(args.device.device, &session.settings)?;
    device.enter(&session.settings, request.numerics, None)?;
    let stages = session.block_on(async {
        let store = session.existing_store().await?;
        compute(&store, &device, request, (args, session)).await
    })?;
    let identical = stages.iter().all(|stage| stage.report.identical);
    let count = stages.len();
    if args.json.json {
        output::json(&Answer { identical, stages })?;
    } else if identical {
        output::line(match count {
            1 => "identical".to_owned(),
            _ => format!("identical: {count} stages"),
        })?;
    } else {
        let differing = stages.iter().filter(|stage| !stage.report.identical).count();
        output::line(format!("differs: {differing} of {count} stages"))?;
    }
    Ok(if identical { Exit::Done } else { Exit::Differs })
}

async fn one_stage(store: &Store, hash: &str) -> Result<Request, Failure> {
    let stage = store.resolve_stage(hash).await?;
    let manifest = store.manifest(stage).await?.ok_or_else(|| {
        Failure::new(
            Exit::Data,
            format!("the manifest of stage {stage} is missing in {}", store.url()),
        )
    })?;
    let run = replay::run_of(store, stage).await?;
    Ok(Request { stages: vec![(None, stage)], run, numerics: manifest.spec.numerics() })
}

async fn whole_run(store: &Store, text: &str) -> Result<Request, Failure> {
    let id = store.resolve_run(text).await?;
    let run = store.run(id).await?;
    store.require_own_versions(id).await?;
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
) -> Result<Vec<Stage>, Failure> {
    let stop = stop_signal(|| output::talk("finishing the stage in hand"))?;
    let execute = device.execute();
    let mut done = vec![];
    for (key, stage) in request.stages {
        if *stop.borrow() {
            return Err(Failure::new(
                Exit::Interrupted,
                format!("stopped after {} stages, all of them reported above", done.len()),
            ));
        }
        if args.rewind {
            let (environment, clock) = (device.environment(), machine::clock());
            replay::mend(store, request.run, stage, &execute, &environment, &clock).await?;
        }
        let report = match replay::replay(store, stage, &execute).await {
            Err(error) => {
                let asked = Some((request.run, stage));
                return Err(recovery::explain(store, session, asked, error.into()).await);
            }
            Ok(report) => report,
        };
        if !args.json.json {
            describe(key.as_deref(), &report)?;
        }
        done.push(Stage { key, report });
    }
    Ok(done)
}

/// A line for the stage, and one for each output.
fn describe(key: Option<&str>, report: &ReplayReport) -> Result<(), Failure> {
    output::line(format!("{} {}", key.unwrap_or(report.kind.name()), report.stage))?;
    for found in &report.outputs {
        let digest = |digest: Option<ArtifactDigest>| {
            digest.map_or_else(|| "none".to_owned(), |digest| digest.to_string())
        };
        let (recorded, recomputed) = (digest(found.recorded), digest(found.recomputed));
        output::line(if found.identical {
            format!("  identical  {}  {recorded}", found.name)
        } else {
            format!("  differs    {}  {recorded} recorded, {recomputed} recomputed", found.name)
        })?;
    }
    if let Some(row) = &report.row {
        output::line(format!("  differs    {row}"))?;
    }
    // Metrics are many and follow from the outputs: only those that differ are printed.
    for found in report.metrics.iter().filter(|metric| !metric.identical) {
        let value =
            |value: Option<f64>| value.map_or_else(|| "none".to_owned(), |value| value.to_string());
        let (recorded, recomputed) = (value(found.recorded), value(found.recomputed));
        output::line(format!(
            "  differs    metric {}  {recorded} recorded, {recomputed} recomputed",
            found.name
        ))?;
    }
    Ok(())
}
