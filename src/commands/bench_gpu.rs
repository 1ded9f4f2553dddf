//! `agrpo bench-gpu`: what a device computes, whether it computes it again, and how fast. One JSON document, in which
//! every assumption stands beside the figure that rests on it. The tiny run lives in memory; parity, speed and
//! utilisation are those of `agrpo_lab::gpu_bench`.

use std::{collections::BTreeMap, io, path::Path};

use agrpo_compute::Device;
use agrpo_fleet::replay;
use agrpo_lab::gpu_bench::{self, Figures, Load, Parity, Utilisation};
use agrpo_spec::{Files, Numerics, Run, RunConfig, StageKind};
use agrpo_store::regular;
use tokio::sync::{mpsc, watch};

use super::computing::local;
use super::files::{BENCH, names, plain, try_writing, write};
use super::prelude::{
    ComputeDevice, Exit, Failure, Result, Serialize, Session, Settings, Store, machine, output,
};
use crate::{args::BenchGpuArgs, gpu::Gpu, libtorch::CudaBuild};

/// A run of every kind of stage, in seconds.
const RUN: &str = include_str!("bench_gpu/run.toml");

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

pub(super) fn bench_gpu(args: &BenchGpuArgs, session: &Session) -> Result<Exit> {
    let settings = &session.settings;
    let load = load(args)?;
    let files = golden(&args.golden)?;
    args.output.as_deref().map_or(Ok(()), |place| try_writing(place, &BENCH))?;
    let (device, class) = enter(args, settings)?;
    output::talk("parity with the processor");
    let parity = gpu_bench::parity(&files, device.id)?;
    output::talk("a tiny run, and every stage of it again");
    let replay = session.block_on(replayed(&device, class))?;
    output::talk("speed");
    let clock = machine::stopwatch();
    let memory = || device.gpu.as_ref().and_then(Gpu::used);
    let figures = gpu_bench::measure(&load, device.id, &clock, &memory)?;
    let gpu = device.gpu.as_ref();
    let name = gpu.map(|gpu| gpu.name.clone());
    let peak = args.peak.map(|tera| tera * 1e12);
    let utilisation = Utilisation::new(&load, &figures, name.as_deref(), peak);
    let answer = Answer {
        agrpo: machine::VERSION,
        libtorch: match device.id {
            Device::Cpu => agrpo_compute::libtorch_version().to_owned(),
            Device::Cuda(_) => CudaBuild::find(settings)?.version,
        },
        device: device.id.to_string(),
        gpu: name,
        driver: gpu.map(|gpu| gpu.driver.clone()),
        memory: gpu.map(|gpu| gpu.memory),
        numerics: class,
        parity,
        replay,
        utilisation,
        load,
        figures,
    };
    match &args.output {
        None => output::json(&answer)?,
        Some(file) => write(file, &BENCH, output::json_text(&answer)? + "\n")?,
    }
    Ok(if answer.replay.identical.values().all(|same| *same) { Exit::Done } else { Exit::Differs })
}

/// The device, and the class that this process is in now.
fn enter(args: &BenchGpuArgs, settings: &Settings) -> Result<(ComputeDevice, Numerics)> {
    let (id, asked) = (args.device.id, args.numerics);
    let device = match ComputeDevice::find(id, None, settings) {
        // Some containers show the GPU and hide the driver's library; nothing is stored here, so a class
        // that is wrong does no harm.
        Err(_) if asked.is_some_and(Numerics::is_cuda) => {
            ComputeDevice::without_driver(id, None, settings)
        }
        found => found?,
    };
    let class = asked.or(device.class()).unwrap_or_default();
    device.enter(settings, class, None)?;
    Ok((device, class))
}

fn load(args: &BenchGpuArgs) -> Result<Load> {
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
fn golden(folder: &Path) -> Result<Files> {
    let cannot = |error: io::Error| {
        let (folder, why) = (folder.display(), plain(&error));
        Failure::usage(format!("--golden {folder}: {why}; expected a model's folder"))
    };
    let mut files = Files::new();
    for name in names(folder).map_err(cannot)? {
        if name == "config.json" || name.starts_with("model") && name.ends_with(".safetensors") {
            let bytes = regular::read(&folder.join(&name)).map_err(cannot)?;
            files.insert(name, bytes.into());
        }
    }
    Ok(files)
}

/// The tiny run in the device's class, in memory, and every stage of it again.
async fn replayed(device: &ComputeDevice, numerics: Numerics) -> Result<Replay> {
    let run = Run::parse(RUN)?;
    let run = Run::resolve(RunConfig { numerics, ..run.config().clone() })?;
    let store = Store::open("memory://", &[]).await?;
    let (events, _unheard) = mpsc::unbounded_channel();
    let (_go_on, stop) = watch::channel(false);
    let (id, local) = (run.id(), local(&store, device, Some(1)));
    local.run(run, false, events, stop).await?;
    let mut identical = BTreeMap::new();
    let reports = replay::replay_run(&store, id, &local.execute).await?;
    for (_, report) in &reports {
        let all: &mut bool = identical.entry(report.kind).or_insert(true);
        *all &= report.identical;
    }
    Ok(Replay { stages: reports.len(), identical })
}
