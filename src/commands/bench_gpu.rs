//! `agrpo bench-gpu`: what a device computes, whether it computes it again, and how fast.
//!
//! One JSON document, in which every assumption stands beside the figure that rests on it. The tiny run
//! lives in memory; what is measured is in `agrpo_stages::benchmark`.

use std::collections::BTreeMap;
use std::path::Path;

use agrpo_jobs::{Store, regular, replay};
use agrpo_spec::{Files, Numerics, Run, RunConfig, StageKind};
use agrpo_stages::Device;
use agrpo_stages::benchmark::{self, Figures, Gauges, Load, Parity};
use serde::Serialize;
use tokio::sync::{mpsc, watch};

use crate::cli::{BenchGpuArgs, VERSION};
use crate::commands::computing::local;
use crate::commands::{block_on, plain, try_writing};
use crate::exit::{Exit, Failure};
use crate::gpu::Gpu;
use crate::libtorch::CudaBuild;
use crate::machine;
use crate::output;
use crate::place::Place;
use crate::settings::Settings;

/// A run of every kind of stage, in seconds.
const RUN: &str = include_str!("bench_gpu/run.toml");

/// Dense products of bfloat16, FLOP/s, by the start of the name that the driver gives: the makers' sheets.
const PEAKS: [(&str, f64); 6] = [
    ("NVIDIA H100 PCIe", 756e12),
    ("NVIDIA H100 NVL", 835e12),
    ("NVIDIA H100", 989.4e12),
    ("NVIDIA H200", 989.4e12),
    ("NVIDIA A100", 312e12),
    ("NVIDIA L40S", 362e12),
];

#[derive(Serialize)]
struct Answer {
    agrpo: &'static str,
    libtorch: String,
    device: String,
    gpu: Option<String>,
    driver: Option<String>,
    memory: Option<u64>,
    numerics: Numerics,
    parity: Parity,
    replay: Replay,
    load: Load,
    figures: Figures,
    utilisation: Utilisation,
}

/// The tiny run, computed twice.
#[derive(Serialize)]
struct Replay {
    stages: usize,
    /// Of each kind, whether every output and metric of all its stages came out again.
    identical: BTreeMap<StageKind, bool>,
}

/// Arithmetic per second as a share of the peak; none where the peak is not known.
#[derive(Serialize)]
struct Utilisation {
    formula: &'static str,
    peak_flop_per_second: Option<f64>,
    forward: Option<f64>,
    rollout: Option<f64>,
    gradient: Option<f64>,
    rollout_tokens_per_second: &'static str,
}

/// Measures the device.
pub(super) fn bench_gpu(args: &BenchGpuArgs, settings: &Settings) -> Result<Exit, Failure> {
    let load = load(args)?;
    let files = golden(&args.golden)?;
    if let Some(file) = &args.output {
        try_writing(file).map_err(|error| unwritable(file, &error))?;
    }
    let (place, class) = enter(args, settings)?;
    output::talk("parity with the processor");
    let parity = benchmark::parity(&files, place.device)?;
    output::talk("a tiny run, and every stage of it again");
    let replay = block_on(replayed(&place, class))?;
    output::talk("speed");
    let clock = machine::stopwatch();
    let memory = || place.gpu.as_ref().and_then(Gpu::used);
    let gauges = Gauges { clock: &clock, memory: &memory };
    let figures = benchmark::measure(&load, place.device, &gauges)?;
    let answer = Answer {
        agrpo: VERSION,
        libtorch: match place.device {
            Device::Cpu => agrpo_stages::libtorch_version().to_owned(),
            Device::Cuda(_) => CudaBuild::find(settings)?.version,
        },
        device: place.device.to_string(),
        gpu: place.gpu.as_ref().map(|gpu| gpu.name.clone()),
        driver: place.gpu.as_ref().map(|gpu| gpu.driver.clone()),
        memory: place.gpu.as_ref().map(|gpu| gpu.memory),
        numerics: class,
        parity,
        replay,
        utilisation: utilisation(args, &load, &figures, &place),
        load,
        figures,
    };
    match &args.output {
        None => output::json(&answer)?,
        Some(file) => {
            let text = serde_json::to_string_pretty(&answer).map_err(|error| {
                Failure::new(Exit::Unexpected, format!("cannot write the answer: {error}"))
            })?;
            regular::write(file, (text + "\n").as_bytes())
                .map_err(|error| unwritable(file, &error))?;
        }
    }
    Ok(if answer.replay.identical.values().all(|same| *same) { Exit::Done } else { Exit::Differs })
}

/// The place, and the class that its process is in now.
fn enter(args: &BenchGpuArgs, settings: &Settings) -> Result<(Place, Numerics), Failure> {
    let device = args.device.device;
    match (Place::find(device, settings), args.numerics) {
        (Ok(place), asked) => {
            let class = asked.or(place.class()).unwrap_or_default();
            place.enter(settings, class, None)?;
            Ok((place, class))
        }
        // Some containers show the GPU and hide the driver's library; nothing is stored here, so a class
        // that is wrong does no harm.
        (Err(_), Some(class @ Numerics::Cuda { .. })) => {
            let place = Place::without_driver(device, settings);
            place.enter_unchecked(settings, class, None)?;
            Ok((place, class))
        }
        (Err(failure), _) => Err(failure),
    }
}

fn load(args: &BenchGpuArgs) -> Result<Load, Failure> {
    let mut load = if args.tiny { Load::tiny() } else { Load::llada_8b() };
    load.sequences = args.sequences.unwrap_or(load.sequences);
    load.model.n_layers = args.layers.unwrap_or(load.model.n_layers);
    let samples = load.gradient_samples.min(load.sequences);
    load.gradient_samples = args.gradient_samples.unwrap_or(samples);
    load.gradient_states = args.gradient_states.unwrap_or(load.gradient_states);
    if load.gradient_samples > load.sequences {
        let (samples, sequences) = (load.gradient_samples, load.sequences);
        return Err(Failure::usage(format!(
            "--gradient-samples {samples}: expected at most one of each of the {sequences} completions"
        )));
    }
    Ok(load)
}

/// The files of a model in Hugging Face layout.
fn golden(folder: &Path) -> Result<Files, Failure> {
    let cannot = |error: std::io::Error| {
        let (folder, why) = (folder.display(), plain(&error));
        Failure::usage(format!("--golden {folder}: {why}; expected a model's folder"))
    };
    let mut files = Files::new();
    for entry in std::fs::read_dir(folder).map_err(cannot)? {
        let path = entry.map_err(cannot)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name == "config.json" || name.starts_with("model") && name.ends_with(".safetensors") {
            files.insert(name, regular::read(&path).map_err(cannot)?.into());
        }
    }
    Ok(files)
}

/// The tiny run in the place's class, in memory, and every stage of it again.
async fn replayed(place: &Place, numerics: Numerics) -> Result<Replay, Failure> {
    let run = Run::parse(RUN)?;
    let run = Run::resolve(RunConfig { numerics, ..run.config().clone() })?;
    let store = Store::open("memory://", &[]).await?;
    let (events, _unheard) = mpsc::unbounded_channel();
    let (_go_on, stop) = watch::channel(false);
    let (id, local) = (run.id(), local(&store, place, Some(1)));
    local.run(run, events, stop).await?;
    let mut identical = BTreeMap::new();
    let reports = replay::replay_run(&store, id, &local.execute, |_, _| ()).await?;
    for (_, report) in &reports {
        let all: &mut bool = identical.entry(report.kind).or_insert(true);
        *all &= report.identical;
    }
    Ok(Replay { stages: reports.len(), identical })
}

fn utilisation(args: &BenchGpuArgs, load: &Load, figures: &Figures, place: &Place) -> Utilisation {
    let known = |gpu: &Gpu| {
        let of_half = PEAKS.iter().find(|(name, _)| gpu.name.starts_with(name));
        of_half.filter(|_| load.half).map(|(_, peak)| *peak)
    };
    let given = args.peak.map(|tera| tera * 1e12);
    let peak = given.or_else(|| place.gpu.as_ref().and_then(known));
    let share = |flop: f64, seconds: f64| peak.map(|peak| flop / seconds / peak);
    Utilisation {
        formula: "FLOP of a forward pass over L tokens with logits at Q of them: n_layers (2 (4 D^2 + 3 D M) + 4 L D) L \
                  + 2 Q D V; of a gradient sample two of them, as the base is frozen; what checkpointing computes again is \
                  not counted; share = FLOP / seconds / peak",
        peak_flop_per_second: peak,
        forward: share(figures.forward_flop, figures.forward_seconds),
        rollout: share(figures.rollout_flop, figures.rollout_seconds),
        gradient: share(figures.gradient_flop_per_sample, figures.gradient_seconds_per_sample),
        rollout_tokens_per_second: "extrapolated from rollout_steps measured steps of load.sampler.steps: whole blocks, \
                                    at the end of sequences of full length",
    }
}

fn unwritable(file: &Path, error: &std::io::Error) -> Failure {
    Failure::usage(format!("--output {}: {}", file.display(), plain(error)))
}
