//! `agrpo run --dry-run`, and the memory check at the start of every run: what would be computed, how much memory a
//! stage takes, by how much the store grows, and about how long it takes. Computes nothing and downloads nothing.
//! Memory follows from the formula of `docs/memory.md`; time from counted operations and rates, which are printed, or from
//! what this machine measured (`dry_run/measured.rs`).

use std::collections::BTreeMap;

use agrpo_spec::memory::{Estimate, Place, TooLarge, Workload};
use agrpo_spec::{
    Base, Chain, Checkpointing, Machine, Numerics, Plan, Rates, Run, RunId, StageCost, StageKind,
};

use self::measured::{Measured, measured};
use super::computing::find_device;
use super::prelude::{ComputeDevice, Exit, Failure, Result, Serialize, Session, machine, output};
use super::run_file::{parse_run, read_sources, unfetched};
use crate::args::RunArgs;

mod measured;
mod text;

#[derive(Debug, Serialize)]
struct DryRun {
    run: RunId,
    name: String,
    numerics: Numerics,
    /// Keys of files that are not fetched yet.
    unfetched: Vec<String>,
    stages: u64,
    kinds: Vec<Kind>,
    /// Of a process with all its stages, at its peak; of a GPU's memory, if one computes.
    process_memory: u64,
    /// Of the host's memory beside a GPU.
    process_host_memory: Option<u64>,
    workers: usize,
    /// Written in all.
    bytes: u64,
    /// Of these, kept at the end by the run's retention.
    kept_bytes: u64,
    /// What time is estimated with.
    rates: Rates,
    threads: usize,
    gpus: Option<u64>,
    /// By the clock, with prompts of the longest length that the run allows.
    #[serde(flatten)]
    chain: Chain,
    /// What `estimator.checkpointing = "auto"` does here.
    checkpointing: Option<Decision>,
}

/// How `estimator.checkpointing = "auto"` is decided.
#[derive(Debug, Serialize)]
struct Decision {
    checkpoints: bool,
    /// A stage that computes gradients, without checkpointing, in bytes.
    without: u64,
    /// What a stage may take of the device, if it is here.
    available: Option<u64>,
}

impl Decision {
    /// None where the run file decides.
    fn of(run: &Run, workload: &Workload, available: Option<u64>) -> Option<Self> {
        if run.config().estimator.checkpointing != Checkpointing::Auto {
            return None;
        }
        let without = Workload { checkpointing: false, ..workload.clone() };
        let without = without.stage(learning(run)).map_or(0, |estimate| estimate.bytes());
        Some(Self { checkpoints: workload.checkpointing, without, available })
    }

    fn describe(&self) -> String {
        let does = if self.checkpoints { "checkpoints" } else { "does not checkpoint" };
        let available = match self.available {
            Some(bytes) => format!("{} are available", output::size(bytes)),
            None => "the device of the run is not here".to_owned(),
        };
        let without = output::size(self.without);
        format!("auto      {does}: a gradient takes {without} without, and {available}")
    }
}

/// The device that would compute a run of this class; none where it is not here.
fn device(args: &RunArgs, session: &Session, class: Numerics) -> Option<ComputeDevice> {
    let device = find_device(&args.compute, &session.settings).ok();
    device.filter(|device| device.id.is_cuda() == class.is_cuda())
}

#[derive(Debug, Serialize)]
struct Kind {
    kind: StageKind,
    stages: u64,
    flops: f64,
    /// By the clock: as measured, else as estimated.
    seconds: f64,
    estimated: f64,
    measured: Option<Measured>,
    /// The estimate, part by part.
    parts: Vec<(&'static str, f64)>,
    /// Written by one stage.
    bytes: u64,
    /// Stages whose results are kept to the end.
    kept: u64,
    /// At the peak of one stage, part by part; of a GPU's memory, if one computes.
    memory: Vec<(&'static str, u64)>,
    /// Of the host's memory beside a GPU.
    host_memory: Vec<(&'static str, u64)>,
}

/// Reports what the run would need; the files that it names may be missing.
pub(super) fn dry_run(args: &RunArgs, session: &Session) -> Result<Exit> {
    let (named, text) = read_sources(&args.run, &session.settings)?;
    let run = parse_run(&unfetched(&text, &named)?, &args.run)?;
    let config = run.config();
    let unfetched = named.into_iter().filter(|source| source.sha256.is_none());
    let is_gpu = config.numerics.is_cuda();
    if args.gpus.is_some() && !is_gpu {
        let refused = Failure::usage(format!("--gpus: the run is of class {}", config.numerics));
        return Err(refused.hint("estimate for GPUs with --numerics cuda:90, for example"));
    }
    let threads = machine::threads(args.compute.threads.count, is_gpu).get();
    // Updates are computed by the host's cores beside a GPU.
    let host = machine::threads(args.compute.threads.count, false).get();
    let workers = args.compute.workers.map_or(threads, usize::from);
    let device = device(args, session, config.numerics);
    let available = device.as_ref().and_then(|device| device.share(workers));
    let workload = workload(&run, threads.div_ceil(workers), available);
    let mut rates = Rates::assumed(config.numerics);
    rates.products = args.tflops.map_or(rates.products, |tflops| tflops * 1e12);
    let gpus = is_gpu.then(|| u64::from(args.gpus.unwrap_or(1)));
    let machine = Machine { gpus, threads: host as u64, workers: workers as u64 };
    // Who says how fast the machine is asks for that.
    let measured = match (args.tflops, &device) {
        (None, Some(device)) => measured(session, &run, &device.environment(workers)),
        _ => BTreeMap::new(),
    };
    let mut costs = workload.costs(&run, &rates);
    costs.retain(|cost| cost.stages > 0);
    let seconds = |cost: &StageCost| match measured.get(&cost.kind) {
        Some(measured) => measured.seconds,
        None => cost.seconds(machine.places(&run, cost.kind)),
    };
    let kind = |cost: &StageCost| {
        let parts = workload.stage(cost.kind).map_or_else(Vec::new, |estimate| estimate.parts);
        let memory = |place| {
            let parts = parts.iter().filter(|part| part.place == place && part.bytes > 0);
            parts.map(|part| (part.name, part.bytes)).collect()
        };
        let places = machine.places(&run, cost.kind);
        Kind {
            kind: cost.kind,
            stages: cost.stages,
            flops: cost.flops,
            seconds: seconds(cost),
            estimated: cost.seconds(places),
            measured: measured.get(&cost.kind).copied(),
            parts: cost.parts.iter().map(|part| (part.name, part.seconds(places))).collect(),
            bytes: cost.bytes,
            kept: config.retention.whole_at_end(&run, cost.kind),
            memory: memory(Place::Device),
            host_memory: memory(Place::Host),
        }
    };
    let kinds: Vec<_> = costs.iter().map(kind).collect();
    let answer = DryRun {
        run: run.id(),
        name: config.name.clone(),
        numerics: config.numerics,
        unfetched: unfetched.map(|source| source.key).collect(),
        stages: Plan::total_stages(&run),
        process_memory: workload.process(workers as u64, Place::Device),
        process_host_memory: is_gpu.then(|| workload.process(workers as u64, Place::Host)),
        workers,
        bytes: kinds.iter().map(|kind| kind.stages * kind.bytes).sum(),
        kept_bytes: kinds.iter().map(|kind| kind.kept * kind.bytes).sum(),
        kinds,
        rates,
        threads,
        gpus,
        chain: machine.chain(&run, &costs, seconds),
        checkpointing: Decision::of(&run, &workload, available),
    };
    output::answer(args.json, &answer, || answer.describe())
}

/// The kind of the run's stages that compute gradients.
fn learning(run: &Run) -> StageKind {
    match run.config().estimator.fused_updates {
        true => StageKind::Updates,
        false => StageKind::Gradient,
    }
}

/// The estimates of a run's stages, each of which has so many threads and may take so many bytes.
pub(super) fn workload(run: &Run, threads: usize, memory: Option<u64>) -> Workload {
    let prompt_tokens = agrpo_compute::prompt_tokens(&run.config().task);
    let vocabulary = match run.base() {
        Base::Scratch(..) => agrpo_compute::vocabulary(&run.config().task).unwrap_or(0),
        Base::Checkpoint(checkpoint) => checkpoint.shape.embedding_size.into(),
    };
    let workload = Workload::of(run, vocabulary, prompt_tokens);
    let workload = Workload { threads: threads as u64, ..workload };
    workload.decided(learning(run), run.config().estimator.checkpointing, memory)
}

/// Refuses a run whose concurrent stages do not fit into memory: the device's and, beside a GPU, the machine's, where
/// optimizers compute. Returns, for people, the largest of the estimates and that of the process with all its stages.
pub(super) fn check_memory(
    run: &Run,
    device: &ComputeDevice,
    workers: Option<u16>,
) -> Result<Option<String>> {
    let workers = device.workers(workers);
    let here = device.share(workers);
    let host = machine::available_memory().map(|bytes| bytes / workers as u64);
    let workload = workload(run, device.threads.count().get().div_ceil(workers), here);
    let largest = |place| workload.stages().max_by_key(|estimate: &Estimate| estimate.sum(place));
    for (place, available) in [(Place::Device, here), (Place::Host, host)] {
        if let (Some(estimate), Some(available)) = (largest(place), available) {
            estimate.fits(place, available).map_err(|too_large| refusal(&too_large))?;
        }
    }
    let process = output::size(workload.process(workers as u64, Place::Device));
    Ok(largest(Place::Device)
        .map(|estimate| format!("{process} for the process, of its largest stage {estimate}")))
}

fn refusal(too_large: &TooLarge) -> Failure {
    Failure::refused(too_large)
        .hint("a lower micro_batch takes less, and so does estimator.checkpointing = \"auto\"")
        .hint("--workers 1 leaves all memory to one stage, --threads 1 to one pass of it")
        .hint("--dry-run shows every part; --ignore-memory computes all the same")
}
