//! `agrpo run`: computes a run on this machine, from the file to the summary. Decides nothing about results: the local
//! scheduler walks the plan, and what the store already holds is not computed again.

use std::{collections::BTreeMap, time::Instant};

use agrpo_compute::Device;
use agrpo_fleet::status::{self, AccuracyStatus};
use agrpo_fleet::{evaluations_so_far, local::Outcome};
use agrpo_spec::{ArtifactDigest, RunId, StageDigest, StageKind};
use agrpo_store::redact;

use super::computing::{STOPPING, Stages, compute, find_device, retrying};
use super::dry_run::{check_memory, dry_run};
use super::prelude::{Exit, Failure, Result, Serialize, Session, machine, output};
use super::run_file::{fetch_run, parse_run, read_sources, unfetched};
use crate::args::{RunArgs, RunFileArgs};
use crate::run_summary::{KindTime, Overhead, RunSummary};
use crate::{metrics::Metrics, shell, signals::stop_signal};

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
    /// The newest update of this process.
    #[serde(skip)]
    last_update: Option<StageDigest>,
}

#[derive(Debug, Serialize)]
struct Accuracy {
    #[serde(flatten)]
    shares: AccuracyStatus,
    problems: u32,
}

pub(super) fn run(args: &RunArgs, session: &Session) -> Result<Exit> {
    if args.dry_run {
        return dry_run(args, session);
    }
    let device = find_device(&args.compute, &session.settings)?;
    let (named, text) = read_sources(&args.run, &session.settings)?;
    // What needs no file is checked before gigabytes are fetched.
    let planned = parse_run(&unfetched(&text, &named)?, &args.run)?;
    device.check(planned.config().numerics)?;
    let largest = match args.ignore_memory {
        true => None,
        false => check_memory(&planned, &device, args.compute.workers)?,
    };
    let (run, text) = fetch_run(&args.run, (&named, text), session)?;
    device.enter(&session.settings, run.config().numerics, Some(&text))?;
    if let Some(largest) = largest {
        output::talk(format!("memory, estimated: {largest}"));
    }
    session.block_on(async {
        let stop = stop_signal(|| output::talk(STOPPING))?;
        let store = retrying(&session.cached_store(&args.cache).await?, args.patience, &stop);
        let worker = machine::environment().worker;
        let class = run.config().numerics;
        let _metrics =
            Metrics::listen(args.metrics.metrics, &session.settings, &worker, class).await?;
        let began = Instant::now();
        output::talk(format!("run {} ({})", run.id(), run.config().name));
        let mut progress = RunSummary::of(&run);
        // A resumed run computes none of these again, and the rest of their evaluations.
        for (key, manifest) in evaluations_so_far(&store, &run).await? {
            progress.add_evaluation(key, &manifest);
        }
        let how = (args.compute.workers, args.repair);
        let (outcome, progress) = compute(&store, &run, &device, how, stop, progress).await;
        let outcome = outcome.map_err(|error| {
            Failure::from(error)
                .hint_on(Exit::StageFailed, format!("agrpo status{}", session.store_option()))
                .hint_on(Exit::Unavailable, "run the same command again: finished stages are kept")
        })?;
        let status = status::status(&store, Some(run.id())).await?.pop();
        let status = status.ok_or_else(|| Failure::unexpected("the run is gone"))?;
        let problems = run.config().evaluation.problems;
        let summary = Summary {
            run: run.id(),
            name: status.name,
            state: match outcome {
                Outcome { done: true, .. } => "done",
                Outcome { cancelled: true, .. } => "cancelled",
                _ => "stopped",
            },
            iteration: status.iteration,
            iterations: status.iterations,
            policy: outcome.policy,
            accuracy: Accuracy { shares: status.accuracy, problems },
            stages: Stages { computed: outcome.computed, reused: outcome.reused },
            wall_s: began.elapsed().as_secs_f64(),
            overhead: progress.overhead(),
            kinds: progress.kinds,
            store: store.url().to_owned(),
            last_update: progress.last_update,
        };
        output::answer(args.json, &summary, || describe(&summary, args, session))?;
        Ok(if outcome.done { Exit::Done } else { Exit::Interrupted })
    })
}

fn describe(summary: &Summary, args: &RunArgs, session: &Session) -> String {
    let Summary { state, iteration, iterations, accuracy, .. } = summary;
    let Stages { computed, reused } = summary.stages;
    let computed = output::count(computed, "stage");
    let progress = format!("{state}: iteration {iteration} of {iterations}");
    let mut rows = vec![
        ("run", summary.run.to_string()),
        ("state", format!("{progress}, {computed} computed, {reused} reused")),
    ];
    rows.extend(summary.policy.map(|policy| ("policy", policy.to_string())));
    let share = |share: f64| output::accuracy(share, accuracy.problems);
    let change =
        output::change(accuracy.shares.base.map(share), accuracy.shares.later().map(share));
    rows.extend(change.map(|change| ("accuracy", change)));
    let kinds = summary.kinds.iter().map(|(kind, time)| {
        let all = time.compute_s + time.fetch_s + time.store_s;
        format!("{kind} {all:.1}")
    });
    let kinds = kinds.collect::<Vec<_>>().join(", ");
    let over_all = if kinds.is_empty() { "" } else { "; over all workers: " };
    rows.push(("seconds", format!("{:.1} by the clock{over_all}{kinds}", summary.wall_s)));
    rows.extend(summary.overhead.map(|Overhead { share, median_ms }| {
        let share = output::percent(share);
        let median = format!("median {median_ms:.1} ms a stage");
        ("overhead", format!("{share} of stage time for reading and writing, {median}"))
    }));
    let store = session.store_option();
    let mut next = vec![];
    if *state != "done" {
        next.push(format!("agrpo run {}", same_run(args)));
    }
    next.extend(["agrpo status".to_owned(), format!("agrpo show {}", summary.run.short())]);
    next.extend(summary.last_update.map(|update| format!("agrpo replay {}", update.short())));
    let next: String = next.iter().map(|command| format!("\n  {command}{store}")).collect();
    format!("{}\n\nnext:{next}", output::fields(&rows))
}

/// The arguments that resume the same run on the same device.
fn same_run(args: &RunArgs) -> String {
    let RunFileArgs { file, seed, numerics, sources } = &args.run;
    let mut words = shell::path(file);
    words.extend(seed.map(|seed| format!(" --seed {seed}")));
    words.extend(numerics.map(|class| format!(" --numerics {class}")));
    words.extend(sources.iter().map(|(key, address)| {
        format!(" --source {}", shell::word(&format!("{key}={}", redact::address(address))))
    }));
    let device = args.compute.device.id;
    words.extend((device != Device::Cpu).then(|| format!(" --device {device}")));
    words
}
