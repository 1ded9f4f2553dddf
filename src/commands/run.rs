//! `agrpo run`: computes a run on this machine, from the file to the summary.
//!
//! Decides nothing about results: the local scheduler walks the plan, and what the store already
//! holds is not computed again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use agrpo_fleet::evaluation_at;
use agrpo_fleet::local::Outcome;
use agrpo_fleet::status::{self, RunStatus};
use agrpo_spec::{ArtifactDigest, Run, RunId, StageKind};
use agrpo_store::Store;
use serde::Serialize;

use crate::args::RunArgs;
use crate::commands::computing::{STOPPING, compute};
use crate::commands::dry_run::{DryRun, check_memory, workload};
use crate::commands::run_file::{fetch_run, parse_run, read_sources};
use crate::commands::sources;
use crate::device::ComputeDevice;
use crate::exit::{Exit, Failure};
use crate::machine;
use crate::metrics::Metrics;
use crate::output;
use crate::run_summary::{KindTime, Overhead, RunSummary};
use crate::session::Session;
use crate::shell;
use crate::signals::stop_signal;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Summary {
    run: RunId,
    name: String,
    state: &'static str,
    iteration: u32,
    iterations: u32,
    policy: Option<ArtifactDigest>,
    accuracy: Accuracy,
    stages: Stages,
    wall_s: f64,
    kinds: BTreeMap<StageKind, KindTime>,
    overhead: Option<Overhead>,
    store: String,
}

#[derive(Debug, Serialize)]
struct Accuracy {
    base: Option<f64>,
    latest: Option<f64>,
    problems: u32,
}

#[derive(Debug, Serialize)]
struct Stages {
    computed: u64,
    reused: u64,
}

/// Reports what the run would need; the files that it names may be missing.
fn dry_run(args: &RunArgs, session: &Session) -> Result<Exit, Failure> {
    let (named, text) = read_sources(&args.run, &session.settings)?;
    let run = parse_run(&sources::unfetched(&text, &named)?, &args.run)?;
    let unfetched = named.iter().filter(|source| source.sha256.is_none());
    let unfetched = unfetched.map(|source| source.key.clone()).collect();
    let workers = match args.workers {
        Some(workers) => usize::from(workers),
        None if run.config().numerics.is_cuda() => 1,
        None => machine::cores(),
    };
    let flops = args.tflops.map(|tflops| tflops * 1e12);
    DryRun::new(&run, &workload(&run), unfetched, flops, workers).print(args.json.json)
}

/// Computes the run.
pub(super) fn run(args: &RunArgs, session: &Session) -> Result<Exit, Failure> {
    if args.dry_run {
        return dry_run(args, session);
    }
    let device = ComputeDevice::find(args.device.device, &session.settings)?;
    let (named, text) = read_sources(&args.run, &session.settings)?;
    // What needs no file is checked before gigabytes are fetched.
    let planned = parse_run(&sources::unfetched(&text, &named)?, &args.run)?;
    device.check(planned.config().numerics)?;
    let largest = if args.ignore_memory {
        None
    } else {
        check_memory(&workload(&planned), &device, device.workers(args.workers))?
    };
    let (run, text) = fetch_run(&args.run, (&named, text), session)?;
    device.enter(&session.settings, run.config().numerics, Some(&text))?;
    if let Some(estimate) = largest {
        output::talk(format!("memory, estimated: {estimate}"));
    }
    session.block_on(async {
        let stop = stop_signal(|| output::talk(STOPPING))?;
        let store = session.cached_store(&args.cache).await?;
        let store = store.with_retry_policy(Duration::from_secs(args.patience), stop.clone());
        let worker = device.environment().worker;
        let class = run.config().numerics;
        let _metrics =
            Metrics::listen(args.metrics.metrics, &session.settings, &worker, class).await?;
        let began = Instant::now();
        output::talk(format!("run {} ({})", run.id(), run.config().name));
        let progress = remembered(&store, &run).await?;
        let (outcome, progress) =
            compute(&store, &run, &device, (args.workers, args.repair), stop, progress).await;
        let outcome = outcome.map_err(|error| explain(error.into(), session))?;
        let url = store.url().to_owned();
        let status = status::status(&store, Some(run.id())).await?;
        let wall_s = began.elapsed().as_secs_f64();
        let summary = summarise(&run, &outcome, &progress, &status, wall_s, url);
        if args.json.json {
            output::json(&summary)?;
        } else {
            output::line(describe(&summary, &progress, (args, session)))?;
        }
        Ok(if outcome.done { Exit::Done } else { Exit::Interrupted })
    })
}

/// The base's accuracy from an earlier process, which a resumed run does not compute again.
async fn remembered(store: &Store, run: &Run) -> Result<RunSummary, Failure> {
    let mut progress = RunSummary::default();
    if let Some(manifest) = evaluation_at(store, run, 0).await?
        && let Some(&share) = manifest.metrics.get("accuracy")
    {
        progress.add_accuracy(0, share);
    }
    Ok(progress)
}

/// Adds what to type next after a failure.
fn explain(failure: Failure, session: &Session) -> Failure {
    let store = session.store_option();
    match failure.exit() {
        Exit::StageFailed => failure.hint(format!("agrpo status{store}")),
        Exit::Unavailable => failure.hint("run the same command again: finished stages are kept"),
        _ => failure,
    }
}

fn summarise(
    run: &Run,
    outcome: &Outcome,
    progress: &RunSummary,
    status: &[RunStatus],
    wall_s: f64,
    store: String,
) -> Summary {
    let config = run.config();
    let status = status.first();
    Summary {
        run: run.id(),
        name: config.name.clone(),
        state: match outcome {
            Outcome { done: true, .. } => "done",
            Outcome { cancelled: true, .. } => "cancelled",
            _ => "stopped",
        },
        iterations: config.training.iterations,
        policy: outcome.policy,
        accuracy: Accuracy {
            base: status.and_then(|status| status.accuracy.base),
            latest: status.and_then(|status| status.accuracy.latest),
            problems: config.evaluation.problems,
        },
        iteration: status.map_or(0, |status| status.iteration),
        stages: Stages { computed: outcome.computed, reused: outcome.reused },
        wall_s,
        kinds: progress.kinds().clone(),
        overhead: progress.overhead(),
        store,
    }
}

/// The summary for people.
fn describe(
    summary: &Summary,
    progress: &RunSummary,
    (args, session): (&RunArgs, &Session),
) -> String {
    let Stages { computed, reused } = summary.stages;
    let mut rows = vec![
        ("run", format!("{}", summary.run)),
        ("state", {
            let Summary { state, iteration, iterations, .. } = summary;
            format!(
                "{state}: iteration {iteration} of {iterations}, {computed} stages computed, {reused} reused"
            )
        }),
    ];
    rows.extend(summary.policy.map(|policy| ("policy", policy.to_string())));
    let problems = summary.accuracy.problems;
    match (summary.accuracy.base, summary.accuracy.latest) {
        (Some(base), Some(latest)) => rows.push((
            "accuracy",
            format!(
                "{} -> {}",
                output::accuracy(base, problems),
                output::accuracy(latest, problems)
            ),
        )),
        (None, Some(latest)) | (Some(latest), None) => {
            rows.push(("accuracy", output::accuracy(latest, problems)));
        }
        (None, None) => {}
    }
    rows.push(("seconds", seconds(summary)));
    rows.extend(summary.overhead.map(|overhead| ("overhead", describe_overhead(overhead))));
    let mut lines: Vec<String> =
        rows.into_iter().map(|(name, value)| format!("{name:<9} {value}")).collect();
    lines.push(String::new());
    lines.push("next:".to_owned());
    let store = session.store_option();
    if summary.state != "done" {
        lines.push(format!("  agrpo run {}{store}", shell::path(&args.run.file)));
    }
    lines.push(format!("  agrpo status{store}"));
    lines.push(format!("  agrpo show {}{store}", summary.run.short()));
    if let Some(update) = progress.last_update() {
        lines.push(format!("  agrpo replay {}{store}", update.stage.short()));
    }
    lines.join("\n")
}

fn seconds(summary: &Summary) -> String {
    let kinds = summary.kinds.iter().map(|(kind, time)| {
        let all = time.compute_s + time.fetch_s + time.store_s;
        format!("{kind} {all:.1}")
    });
    let kinds = kinds.collect::<Vec<_>>().join(", ");
    let clock = format!("{:.1} by the clock", summary.wall_s);
    if kinds.is_empty() { clock } else { format!("{clock}; over all workers: {kinds}") }
}

fn describe_overhead(Overhead { share, median_ms }: Overhead) -> String {
    format!(
        "{} of stage time for reading and writing, median {median_ms:.1} ms a stage",
        output::percent(share)
    )
}
