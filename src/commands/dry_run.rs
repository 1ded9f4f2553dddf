//! `agrpo run --dry-run`, and the memory check at the start of every run: what would be computed, how much memory a
//! stage takes, by how much the store grows, and about how long it takes. Computes nothing and downloads nothing.
//! Memory follows from the formula of `docs/memory.md`; time from counted operations and an assumed throughput, which
//! is printed.

use std::time::Duration;

use agrpo_spec::memory::{Estimate, TooLarge, Workload};
use agrpo_spec::{Base, Numerics, Plan, Run, RunId, StageCost, StageKind};

use super::prelude::{ComputeDevice, Exit, Failure, Result, Serialize, Session, machine, output};
use super::run_file::{parse_run, read_sources, unfetched};
use crate::args::RunArgs;

#[derive(Debug, Serialize)]
struct DryRun {
    run: RunId,
    name: String,
    numerics: Numerics,
    /// Keys of files that are not fetched yet.
    unfetched: Vec<String>,
    stages: u64,
    kinds: Vec<Kind>,
    /// Written in all.
    bytes: u64,
    /// Of these, kept at the end by the run's retention.
    kept_bytes: u64,
    /// Sustained, of one thread or of the GPU.
    assumed_flops: f64,
    threads: usize,
    /// By the clock, with prompts of the longest length that the run allows.
    seconds: f64,
}

#[derive(Debug, Serialize)]
struct Kind {
    kind: StageKind,
    stages: u64,
    flops: f64,
    seconds: f64,
    /// Written by one stage.
    bytes: u64,
    /// Stages whose results are kept to the end.
    kept: u64,
    /// At the peak of one stage, part by part.
    memory: Vec<(&'static str, u64)>,
}

/// The default of the sustained operations a second: of a GPU 40 % of its tensor cores' peak in bf16 that NVIDIA gives
/// for the class, of a thread what `make bench` measures on one core.
fn assumed_flops(class: Numerics) -> f64 {
    match class {
        Numerics::CpuPortable | Numerics::CpuNative => 100e9,
        Numerics::Cuda { sm: 90.. } => 0.4 * 989e12,
        Numerics::Cuda { sm: 80..90 } => 0.4 * 312e12,
        Numerics::Cuda { .. } => 0.4 * 100e12,
    }
}

/// Reports what the run would need; the files that it names may be missing.
pub(super) fn dry_run(args: &RunArgs, session: &Session) -> Result<Exit> {
    let (named, text) = read_sources(&args.run, &session.settings)?;
    let run = parse_run(&unfetched(&text, &named)?, &args.run)?;
    let config = run.config();
    let unfetched = named.into_iter().filter(|source| source.sha256.is_none());
    let threads = machine::threads(args.compute.threads.count, config.numerics.is_cuda()).get();
    let workers = args.compute.workers.map_or(threads, usize::from);
    let workload = workload(&run, threads.div_ceil(workers));
    let flops = args.tflops.map(|tflops| tflops * 1e12);
    let assumed_flops = flops.unwrap_or_else(|| assumed_flops(config.numerics));
    let kind = |cost: StageCost| {
        let memory = workload.stage(cost.kind).map(|estimate| estimate.parts);
        let memory = memory.unwrap_or_default().into_iter().filter(|part| part.bytes > 0);
        Kind {
            kind: cost.kind,
            stages: cost.stages,
            flops: cost.flops,
            seconds: cost.flops / assumed_flops,
            bytes: cost.bytes,
            kept: config.retention.whole_at_end(&run, cost.kind),
            memory: memory.map(|part| (part.name, part.bytes)).collect(),
        }
    };
    let kinds: Vec<_> =
        workload.costs(&run).into_iter().filter(|cost| cost.stages > 0).map(kind).collect();
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let seconds =
        kinds.iter().map(|kind| kind.stages as f64 * kind.seconds).sum::<f64>() / threads as f64;
    let answer = DryRun {
        run: run.id(),
        name: config.name.clone(),
        numerics: config.numerics,
        unfetched: unfetched.map(|source| source.key).collect(),
        stages: Plan::total_stages(&run),
        bytes: kinds.iter().map(|kind| kind.stages * kind.bytes).sum(),
        kept_bytes: kinds.iter().map(|kind| kind.kept * kind.bytes).sum(),
        kinds,
        assumed_flops,
        threads,
        seconds,
    };
    output::answer(args.json, &answer, || answer.describe())
}

impl DryRun {
    fn describe(&self) -> String {
        let mut lines = vec![format!("run       {} ({}, {})", self.run, self.name, self.numerics)];
        if !self.unfetched.is_empty() {
            let keys = self.unfetched.join(", ");
            lines.push(format!(
                "          without {keys}: its id is another one once they are fetched"
            ));
        }
        lines.push(format!("stages    {} in all", self.stages));
        let head = ["kind", "stages", "TFLOP", "seconds", "writes", "memory"];
        let row = |kind: &Kind| {
            let peak: u64 = kind.memory.iter().map(|(_, bytes)| bytes).sum();
            [
                kind.kind.to_string(),
                kind.stages.to_string(),
                format!("{:.3}", kind.flops / 1e12),
                format!("{:.1}", kind.seconds),
                output::size(kind.bytes),
                if peak == 0 { "-".to_owned() } else { output::size(peak) },
            ]
        };
        lines.push(output::table(head, self.kinds.iter().map(row)));
        let memory = self.kinds.iter().filter(|kind| !kind.memory.is_empty()).map(|kind| {
            let parts =
                kind.memory.iter().map(|(name, bytes)| format!("{name} {}", output::size(*bytes)));
            format!("memory    {}: {}", kind.kind, parts.collect::<Vec<_>>().join(", "))
        });
        lines.extend(memory);
        let written = output::size(self.bytes);
        lines.push(if self.kept_bytes == self.bytes {
            format!("store     {written} over the whole run")
        } else {
            let kept = output::size(self.kept_bytes);
            format!("store     {written} over the whole run, of which [retention] keeps {kept}")
        });
        let unit = if self.numerics.is_cuda() { "GPU" } else { "thread" };
        lines.push(format!(
            "time      up to {} on {}, with the longest prompts and at {:.2} TFLOP/s each, \
             which is assumed: --tflops N says better",
            output::short_duration(Duration::from_secs_f64(self.seconds)),
            output::count(self.threads as u64, unit),
            self.assumed_flops / 1e12
        ));
        lines.join("\n")
    }
}

/// The estimates of a run's stages, each of which has so many threads.
pub(super) fn workload(run: &Run, threads: usize) -> Workload {
    let prompt_tokens = agrpo_compute::prompt_tokens(&run.config().task);
    let vocabulary = match run.base() {
        Base::Scratch(..) => agrpo_compute::vocabulary(&run.config().task).unwrap_or(0),
        Base::Checkpoint(checkpoint) => checkpoint.shape.embedding_size.into(),
    };
    Workload { threads: threads as u64, ..Workload::of(run, vocabulary, prompt_tokens) }
}

/// Refuses a run whose concurrent stages do not fit into memory; updates, which the processor computes in every
/// class, are checked against the machine's memory. Returns the largest of the other estimates.
pub(super) fn check_memory(
    run: &Run,
    device: &ComputeDevice,
    workers: Option<u16>,
) -> Result<Option<Estimate>> {
    let workers = device.workers(workers);
    let workload = workload(run, device.threads.count().get().div_ceil(workers));
    let share = |bytes: Option<u64>| bytes.map(|bytes| bytes / workers as u64);
    let (here, host) = (share(device.memory()), share(machine::available_memory()));
    if let (Some(update), Some(host)) = (workload.stage(StageKind::Update), host) {
        update.fits(host).map_err(|too_large| refusal(&too_large))?;
    }
    let kinds = [StageKind::Rollout, StageKind::Gradient, StageKind::Evaluation];
    let largest = kinds.into_iter().filter_map(|kind| workload.stage(kind));
    let largest = largest.max_by_key(Estimate::bytes);
    if let (Some(estimate), Some(here)) = (&largest, here) {
        estimate.fits(here).map_err(|too_large| refusal(&too_large))?;
    }
    Ok(largest)
}

fn refusal(too_large: &TooLarge) -> Failure {
    Failure::refused(too_large)
        .hint("a lower micro_batch takes less, and so does estimator.checkpointing = true")
        .hint("--workers 1 leaves all memory to one stage, --threads 1 to one pass of it")
        .hint("--dry-run shows every part; --ignore-memory computes all the same")
}
