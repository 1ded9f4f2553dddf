//! One section of `agrpo bench-gpu`, in a process of its own: enters the device's class, measures, and prints every row as
//! soon as it is finished. A row that fails leaves the exit code at 0; what fails as a whole does not.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::parent_id;
use std::path::Path;

use agrpo_compute::Device;
use agrpo_fleet::replay;
use agrpo_lab::gpu_bench::{self, Load, Row, Rows};
use agrpo_spec::{Files, Numerics, Run, RunConfig, StageError, StageKind};
use agrpo_store::regular;
use rustix::process::{Signal, set_parent_process_death_signal};
use tokio::sync::{mpsc, watch};

use crate::args::{BenchGpuArgs, SectionArg};
use crate::commands::computing::local;
use crate::commands::files::{names, plain};
use crate::commands::prelude::{
    ComputeDevice, Exit, Failure, Result, Serialize, Session, Settings, Store, cannot, machine,
    output,
};
use crate::{gpu::Gpu, numerics::Products};

/// A run of every kind of stage, in seconds.
const RUN: &str = include_str!("run.toml");

pub(super) fn measure(
    section: SectionArg,
    args: &BenchGpuArgs,
    load: &Load,
    session: &Session,
) -> Result<Exit> {
    end_with(args.parent)?;
    let settings = &session.settings;
    // Updates are computed on the processor in every class.
    let id = if section == SectionArg::Update { Device::Cpu } else { args.device.id };
    let (device, class) = enter(id, args, settings)?;
    let clock = machine::stopwatch();
    let mut emit = |row: Row| {
        let error = row.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
        output::talk(format!("  {} in {:.1} s{error}", row.name, row.seconds));
        let line = serde_json::to_string(&row).unwrap_or_default();
        output::line(line).unwrap_or_else(|failure| output::talk(failure.to_string()));
    };
    let mut rows = Rows::new(id, &clock, &mut emit);
    match section {
        SectionArg::Doctor | SectionArg::Reference => {
            return Err(Failure::usage("this section is another program"));
        }
        SectionArg::Operations => gpu_bench::operations(id, &mut rows),
        SectionArg::Parity => gpu_bench::parity(&golden(&args.golden)?, id, &mut rows),
        SectionArg::Replay => replayed(&device, class, session, &mut rows)?,
        SectionArg::Ratio => gpu_bench::ratio(&ratio_load(args), id, &mut rows),
        SectionArg::Model => {
            let memory = || device.gpu.as_ref().and_then(Gpu::used);
            let known = || gpu_bench::peak(&device.gpu.as_ref()?.name).filter(|_| load.half);
            let peak = args.peak.map(|tera| tera * 1e12).or_else(known);
            gpu_bench::model(load, id, &memory, peak, &mut rows);
        }
        SectionArg::Update => gpu_bench::update(load, machine::cores(), &mut rows),
    }
    Ok(Exit::Done)
}

/// Kills this process when the one that started it ends, so that what ends `bench-gpu` frees the device. The restart
/// that loads a CUDA build keeps this.
fn end_with(parent: Option<u32>) -> Result<()> {
    let Some(parent) = parent else { return Ok(()) };
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(cannot("end with the process that started it"))?;
    // It may have ended before.
    if parent_id() != parent {
        return Err(Failure::usage(format!("--parent {parent}: the process is gone")));
    }
    Ok(())
}

/// The model whose fresh ratios are measured.
pub(super) fn ratio_load(args: &BenchGpuArgs) -> Load {
    if args.tiny { Load::tiny() } else { Load::middle() }
}

/// The device, and the class that this process is in now.
fn enter(
    id: Device,
    args: &BenchGpuArgs,
    settings: &Settings,
) -> Result<(ComputeDevice, Numerics)> {
    let device = match ComputeDevice::find(id, None, settings) {
        // Some containers show the GPU and hide the driver's library.
        Err(_) if args.numerics.is_some_and(Numerics::is_cuda) => {
            ComputeDevice::without_driver(id, None, settings)
        }
        found => found?,
    };
    let asked = args.numerics.filter(|class| class.is_cuda() == id.is_cuda());
    let class = asked.or(device.class()).unwrap_or_default();
    let products = Products::ALL.into_iter().find(|products| products.name == args.products);
    let products = products.ok_or_else(|| {
        let known = Products::ALL.map(|products| products.name).join(", ");
        Failure::usage(format!("--products {}: expected one of {known}", args.products))
    })?;
    device.enter_with(settings, (class, products), None)?;
    Ok((device, class))
}

/// The files of a model in Hugging Face layout.
pub(super) fn golden(folder: &Path) -> Result<Files> {
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

/// All stages of one kind, computed twice.
#[derive(Debug, Serialize)]
struct Replayed {
    stages: usize,
    /// Whether every output and every metric came out again.
    identical: bool,
}

/// Tiny runs in the device's class, in memory, and every stage of them again: a row for each kind. One run has an update
/// for every inner update, the other has them fused in one stage.
fn replayed(
    device: &ComputeDevice,
    numerics: Numerics,
    session: &Session,
    rows: &mut Rows<'_>,
) -> Result<()> {
    let config = RunConfig { numerics, ..Run::parse(RUN)?.config().clone() };
    let mut fused = config.clone();
    fused.training.iterations = 1;
    fused.estimator.inner_updates = 2;
    fused.estimator.fused_updates = true;
    let store = session.block_on(async { Ok(Store::open("memory://", &[]).await?) })?;
    let local = local(&store, device, Some(1));
    let as_stage = |failure: Failure| StageError::Internal(failure.message.into());
    let mut kinds: BTreeMap<StageKind, Replayed> = BTreeMap::new();
    for (config, name) in [(config, "a tiny run"), (fused, "a tiny run with fused updates")] {
        let run = Run::resolve(config)?;
        let id = run.id();
        // What was computed before a failure is replayed all the same.
        rows.prepare(name, |_| {
            let (events, _unheard) = mpsc::unbounded_channel();
            let (_go_on, stop) = watch::channel(false);
            let work = async { Ok(local.run(run, false, events, stop).await?) };
            session.block_on(work).map_err(as_stage)
        });
        let reports = rows.prepare(&format!("{name}, every stage again"), |_| {
            let again = async { Ok(replay::replay_run(&store, id, &local.execute).await?) };
            session.block_on(again).map_err(as_stage)
        });
        for (_, report) in reports.into_iter().flatten() {
            let first = Replayed { stages: 0, identical: true };
            let of_kind = kinds.entry(report.kind).or_insert(first);
            of_kind.stages += 1;
            of_kind.identical &= report.identical;
        }
    }
    for (kind, replayed) in kinds {
        let wrong = |found: &Replayed| (!found.identical).then(|| "other bytes".to_owned());
        rows.add_checked(&format!("stages: {kind}"), |_| Ok(replayed), wrong);
    }
    Ok(())
}
