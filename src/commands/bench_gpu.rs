//! `agrpo bench-gpu`: what a device computes, whether it computes it again, and how fast. This process computes nothing: it
//! starts one for each section (`bench_gpu/child.rs`), which runs `bench_gpu/section.rs`, and writes what is known after
//! every section, so that nothing is lost if it is ended. What is measured is in `agrpo_lab::gpu_bench`.

use std::process::Command;
use std::time::Duration;

use agrpo_compute::Device;
use agrpo_lab::gpu_bench::{Document, Load, Row, Section, State, peak, summary};
use agrpo_spec::Numerics;
use serde_json::{Value, json};

use self::child::Ended;
use super::files::{BENCH, BENCH_PAGE, try_writing, write};
use super::prelude::{Exit, Failure, Result, Session, Settings, cannot, machine, output};
use crate::args::{BenchGpuArgs, SectionArg};
use crate::{gpu::Gpu, libtorch::CudaBuild, numerics::Products};

mod child;
mod section;

/// What is assumed of a GPU that no driver describes: nothing is stored, so a class that is wrong does no harm.
const UNKNOWN: Numerics = Numerics::Cuda { sm: 90 };

/// A section to measure.
struct Planned {
    section: SectionArg,
    products: Products,
    /// Seconds that it takes on a GPU of the last generations, and those after which it is ended.
    expected: f64,
    limit: f64,
}

pub(super) fn bench_gpu(args: &BenchGpuArgs, session: &Session) -> Result<Exit> {
    let load = load(args)?;
    if let Some(section) = args.section {
        return section::measure(section, args, &load, session);
    }
    section::golden(&args.golden)?;
    let page = args.output.as_deref().map(|file| file.with_extension("md"));
    if let (Some(file), Some(page)) = (&args.output, &page) {
        try_writing(file, &BENCH)?;
        try_writing(page, &BENCH_PAGE)?;
    }
    let mut document = describe(args, load, &session.settings);
    let write_all = |document: &Document| match (&args.output, &page) {
        (Some(file), Some(page)) => {
            write(file, &BENCH, output::json_text(document)? + "\n")?;
            write(page, &BENCH_PAGE, summary(document))
        }
        _ => Ok(()),
    };
    let clock = machine::stopwatch();
    for planned in plan(args) {
        let start = clock();
        let limit = planned.limit.min(document.budget_seconds - start);
        let ended = if limit < planned.expected.min(planned.limit) {
            let (left, expected) = (limit.max(0.0), planned.expected);
            let why =
                format!("{left:.0} s are left of the budget, and it takes about {expected:.0}");
            output::talk(format!("{}: skipped: {why}", planned.title()));
            Ended { skipped: Some(why), ..Ended::default() }
        } else {
            output::talk(format!("{}: at most {limit:.0} s", planned.title()));
            let command = command(args, &planned, &document)?;
            session
                .block_on(async { Ok(child::run(command, Duration::from_secs_f64(limit)).await) })?
        };
        let section = planned.finished(ended, limit.max(0.0), clock() - start);
        document.sections.push(section);
        document.seconds = clock();
        write_all(&document)?;
    }
    if args.output.is_none() {
        output::json(&document)?;
    }
    document.failures().iter().for_each(|line| output::talk(format!("failed: {line}")));
    Ok(exit(&document))
}

/// 3 where all that is wrong are comparisons, 6 where anything could not be measured.
fn exit(document: &Document) -> Exit {
    let is_failed = |section: &&Section| section.state == State::Failed;
    let mut failed = document.sections.iter().filter(is_failed).peekable();
    if failed.peek().is_none() {
        return Exit::Done;
    }
    let compared = |row: &Row| row.error.is_none() || !row.result.is_null();
    let differs =
        failed.all(|section| section.error.is_none() && section.rows.iter().all(compared));
    if differs { Exit::Differs } else { Exit::StageFailed }
}

/// What is measured in which order: what says most comes first, and settings that are not the class's come last.
fn plan(args: &BenchGpuArgs) -> Vec<Planned> {
    use SectionArg::{Doctor, Model, Operations, Parity, Ratio, Reference, Replay, Update};
    let all = [
        // The first process reads some gigabytes of libraries.
        (Doctor, 10.0, 60.0),
        (Operations, 12.0, 45.0),
        (Parity, 12.0, 60.0),
        (Replay, 25.0, 75.0),
        (Ratio, 12.0, 45.0),
        (Model, 50.0, 130.0),
        (Reference, 35.0, 90.0),
        (Update, 20.0, 60.0),
    ];
    let planned =
        |section, products, expected, limit| Planned { section, products, expected, limit };
    let class =
        all.map(|(section, expected, limit)| planned(section, Products::CLASS, expected, limit));
    let others = Products::ALL.into_iter().filter(|products| *products != Products::CLASS);
    let others = others.map(|products| planned(Ratio, products, 12.0, 40.0));
    let is_asked = |section| args.only.is_empty() || args.only.contains(&section);
    class
        .into_iter()
        .chain(others.filter(|_| args.device.id.is_cuda()))
        .filter(|planned| is_asked(planned.section))
        .collect()
}

/// The machine, before anything is measured.
fn describe(args: &BenchGpuArgs, load: Load, settings: &Settings) -> Document {
    let (gpu, why) = match args.device.id {
        Device::Cpu => (None, None),
        Device::Cuda(number) => match Gpu::find(number, settings) {
            Ok(gpu) => (Some(gpu), None),
            Err(failure) => (None, Some(failure.message)),
        },
    };
    let of_device = match args.device.id {
        Device::Cpu => Numerics::CpuPortable,
        Device::Cuda(_) => gpu.as_ref().map_or(UNKNOWN, Gpu::class),
    };
    let libtorch = match args.device.id {
        Device::Cpu => agrpo_compute::libtorch_version().to_owned(),
        Device::Cuda(_) => {
            CudaBuild::find(settings).map_or_else(|failure| failure.message, |build| build.version)
        }
    };
    let known = gpu.as_ref().filter(|_| !args.tiny).and_then(|gpu| peak(&gpu.name));
    Document {
        agrpo: machine::VERSION.to_owned(),
        libtorch,
        schema: Document::SCHEMA,
        device: args.device.id.to_string(),
        driver: gpu.as_ref().map(|gpu| gpu.driver.clone()).or(why),
        memory: gpu.as_ref().map(|gpu| gpu.memory),
        gpu: gpu.map(|gpu| gpu.name),
        numerics: args.numerics.unwrap_or(of_device).to_string(),
        processor: machine::cpu(),
        cores: machine::cores().get(),
        peak_flop_per_second: args.peak.map(|tera| tera * 1e12).or(known),
        assumptions: Document::assumptions(),
        load,
        ratio_load: section::ratio_load(args),
        budget_seconds: f64::from(args.budget),
        seconds: 0.0,
        sections: vec![],
    }
}

/// The process of a section. It ends with this one, so that it does not hold the device, except for `doctor`, which ends by
/// itself within seconds, and for a `--python` that starts Python as a process of its own: only that wrapper's end counts.
fn command(args: &BenchGpuArgs, planned: &Planned, document: &Document) -> Result<Command> {
    let own_id = std::process::id().to_string();
    if planned.section == SectionArg::Reference {
        let mut command = Command::new(&args.python);
        let load = serde_json::to_string(&document.load).map_err(cannot("describe the model"))?;
        command.arg(&args.reference).args(["--device", &document.device, "--load", &load]);
        command.args(["--parent", &own_id]);
        return Ok(command);
    }
    let program = std::env::current_exe().map_err(cannot("find itself"))?;
    let mut command = Command::new(program);
    if planned.section == SectionArg::Doctor {
        // The services are not measured, nor touched.
        command.args(["doctor", "--json", "--store", "memory://", "--device", &document.device]);
        command.env_remove("AGRPO_REDIS");
        return Ok(command);
    }
    command.args(std::env::args_os().skip(1));
    command.args(["--section", &planned.name(), "--products", planned.products.name]);
    command.args(["--parent", &own_id]);
    if args.numerics.is_none() {
        command.args(["--numerics", &document.numerics]);
    }
    Ok(command)
}

impl Planned {
    fn name(&self) -> String {
        format!("{:?}", self.section).to_lowercase()
    }

    fn title(&self) -> String {
        match self.section {
            SectionArg::Ratio => format!("{} ({})", self.name(), self.products.name),
            _ => self.name(),
        }
    }

    fn finished(&self, ended: Ended, limit_seconds: f64, seconds: f64) -> Section {
        let Ended { mut rows, rest, mut error, skipped } = ended;
        if self.section == SectionArg::Doctor {
            // Its exit code says nothing that its checks do not.
            if let Some((row, bad)) = checked(&rest, seconds) {
                error = bad;
                rows.push(row);
            }
        }
        let is_failed = error.is_some() || rows.iter().any(|row| row.error.is_some());
        let state = match skipped {
            Some(_) => State::Skipped,
            None if is_failed => State::Failed,
            None => State::Done,
        };
        Section {
            name: self.name(),
            products: self.products.name.to_owned(),
            settings: self.products.describe(),
            state,
            limit_seconds,
            seconds,
            error: error.or(skipped),
            rows,
        }
    }
}

/// What `agrpo doctor` checks of a machine that computes, beside its services.
const CHECKS: [&str; 8] =
    ["agrpo", "libtorch", "processor", "cores", "numerics", "rows", "gpu", "cuda"];

/// The answer of `agrpo doctor` as a row, without places of this machine, and what is bad.
fn checked(answer: &str, seconds: f64) -> Option<(Row, Option<String>)> {
    let answer = serde_json::from_str::<Value>(answer).ok()?;
    let text = |check: &Value, key: &str| check[key].as_str().unwrap_or_default().to_owned();
    let mut checks: Vec<Value> = answer["checks"].as_array()?.clone();
    checks.retain(|check| CHECKS.contains(&text(check, "name").as_str()));
    for check in checks.iter_mut().filter(|check| check["verdict"] == "ok") {
        if let Some((found, _)) = text(check, "found").split_once(" in /") {
            check["found"] = found.into();
        }
    }
    let bad = checks.iter().filter(|check| check["verdict"] == "bad");
    let bad = bad.map(|check| format!("{}: {}", text(check, "name"), text(check, "found")));
    let bad = bad.collect::<Vec<_>>().join("; ");
    let result = json!({ "checks": checks });
    let row = Row { name: "checks".to_owned(), seconds, error: None, result };
    Some((row, (!bad.is_empty()).then_some(bad)))
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
