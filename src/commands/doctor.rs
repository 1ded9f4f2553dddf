//! `agrpo doctor`: checks this machine and the services, and says what to do where a check fails. Deletes again what
//! it writes. A Redis that is only the default may be missing, since `agrpo run` needs none.

use std::{thread, time::Duration};

use agrpo_compute::{
    Device,
    model::{RowsReport, check_rows},
};
use agrpo_fleet::{Finding, Skew, clock_skew, inspect, store_skew};
use agrpo_spec::Numerics;
use agrpo_store::JobsError;

use super::prelude::{
    ComputeDevice, Exit, Failure, Result, Serialize, Session, Settings, machine, output,
};
use crate::device::{OTHER_PROCESSOR, check_processor};
use crate::{args::DoctorArgs, gpu::Gpu, libtorch::CudaBuild, numerics};

/// Less free space than this gives a note.
const LOW_DISK_BYTES: u64 = 1 << 30;
/// Largest size and number of rows of the small shapes: about a second of work.
const LARGEST: i64 = 20;
const ROWS: i64 = 17;
/// The advice about a Redis that was not asked for.
const OPTIONAL: &str = "only agrpo enqueue and agrpo worker need it; agrpo run does not";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    /// Not good, but no requested service needs it.
    Note,
    Bad,
}

/// What was checked, how it ended and what to do.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    found: String,
    /// What to do; empty where nothing is to be done.
    #[serde(skip_serializing_if = "String::is_empty")]
    advice: String,
    #[serde(skip)]
    exit: Exit,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        let (verdict, exit) = (Verdict::Ok, Exit::Done);
        Self { name, verdict, found: found.into(), advice: String::new(), exit }
    }

    fn note(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { verdict: Verdict::Note, advice: advice.into(), ..Self::ok(name, found) }
    }

    fn bad(name: &'static str, failure: &Failure, advice: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Bad,
            advice: advice.into(),
            // Any other defect of a service counts as the service being unavailable.
            exit: if failure.exit == Exit::Data { Exit::Data } else { Exit::Unavailable },
            ..Self::ok(name, failure.message.as_str())
        }
    }
}

#[derive(Debug, Serialize)]
struct Answer {
    healthy: bool,
    checks: Vec<Check>,
}

pub(super) fn doctor(args: &DoctorArgs, session: &Session) -> Result<Exit> {
    let (class, gpu) = graphics(args, &session.settings)?;
    let computes = !class.is_cuda() && check_processor().is_ok();
    let shapes = computes.then(|| thread::spawn(|| check_rows(LARGEST, ROWS)));
    let services = async { Ok((store(session).await, redis(session).await)) };
    let (store, redis) = session.block_on(services)?;
    let mut checks = vec![
        Check::ok("agrpo", machine::VERSION),
        Check::ok("libtorch", agrpo_compute::libtorch_version()),
        processor(),
        Check::ok("cores", format!("{}, so as many threads compute", machine::cores())),
        Check::ok("numerics", format!("{class}: {}", numerics::describe(class))),
    ];
    checks.extend(shapes.map(|thread| rows(thread.join().ok())));
    checks.extend(gpu);
    checks.extend(disk(session));
    checks.extend(store.into_iter().chain(redis));
    let exit = checks.iter().map(|check| check.exit).find(|&exit| exit != Exit::Done);
    let answer = Answer { healthy: exit.is_none(), checks };
    output::answer(args.json, &answer, || describe(&answer.checks))?;
    Ok(exit.unwrap_or(Exit::Done))
}

/// Checks the GPU, which has to be there only if --device names it; returns the class that the process entered.
fn graphics(args: &DoctorArgs, settings: &Settings) -> Result<(Numerics, Vec<Check>)> {
    let (number, is_asked) = match args.device.id {
        Device::Cpu => (0, false),
        Device::Cuda(number) => (number, true),
    };
    let not_there = |name, failure: &Failure, advice: &str| match is_asked {
        true => Check::bad(name, failure, advice),
        false => Check::note(name, failure.message.as_str(), "only --device cuda:N needs it"),
    };
    let device = ComputeDevice::find(Device::Cuda(number), None, settings);
    let gpu = match &device {
        Ok(ComputeDevice { gpu: Some(gpu), .. }) => Check::ok("gpu", describe_gpu(gpu)),
        Ok(_) => return Err(Failure::unexpected("a GPU without a description")),
        Err(failure) => not_there("gpu", failure, "install NVIDIA's driver, or use --device cpu"),
    };
    let cuda = match CudaBuild::find(settings) {
        Ok(CudaBuild { version, libraries }) => {
            Check::ok("cuda", format!("libtorch {version} in {}", libraries.display()))
        }
        Err(failure) => not_there("cuda", &failure, "see docs/gpu.md"),
    };
    let all_there = [&gpu, &cuda].iter().all(|check| check.verdict == Verdict::Ok);
    let mut checks = vec![gpu, cuda];
    match device {
        Ok(device) if is_asked && all_there => {
            let class = device.class().unwrap_or_default();
            checks.push(match device.enter(settings, class, None) {
                Ok(()) => Check::ok("device", format!("{} computes {class}", device.id)),
                Err(failure) => Check::bad("device", &failure, "see docs/gpu.md"),
            });
            Ok((class, checks))
        }
        _ => {
            let class = (Numerics::CpuPortable, numerics::Products::CLASS);
            numerics::enter(settings, class, None, None)?;
            Ok((Numerics::CpuPortable, checks))
        }
    }
}

fn describe_gpu(gpu: &Gpu) -> String {
    let used = gpu.used().map_or_else(|| "unknown".into(), output::size);
    let (name, class, memory, driver) =
        (&gpu.name, gpu.class(), output::size(gpu.memory), &gpu.driver);
    format!("{name}, {class}, {memory} of which {used} are in use, driver {driver}")
}

fn processor() -> Check {
    match check_processor() {
        Ok(()) => {
            let avx512 = if machine::has_avx512() { ", avx512" } else { "" };
            Check::ok("processor", format!("{}, avx2{avx512}", machine::cpu()))
        }
        Err(failure) => Check::bad("processor", &failure, OTHER_PROCESSOR),
    }
}

/// Whether no row of a product depends on the rows beside it: only then are ratios of fresh trajectories exactly 1.
fn rows(found: Option<RowsReport>) -> Check {
    let Some(RowsReport { shapes, failing }) = found else {
        let failure = Failure::unavailable("the small shapes cannot be computed");
        return Check::bad("rows", &failure, "");
    };
    let Some(first) = failing.first() else {
        let found = format!("in {shapes} small shapes no row depends on the rows beside it");
        return Check::ok("rows", found);
    };
    let failure = Failure::unavailable(format!(
        "in {} of {shapes} small shapes a row depends on the rows beside it; {first}",
        failing.len()
    ));
    Check::bad(
        "rows",
        &failure,
        "report it with the processor's name; libtorch may be another build",
    )
}

fn disk(session: &Session) -> Option<Check> {
    let folder = session.store_folder()?;
    let folder = std::path::absolute(folder).ok()?;
    let free = machine::free_bytes(&folder)?;
    let found = format!("{} free for {}", output::size(free), folder.display());
    Some(if free < LOW_DISK_BYTES {
        Check::note("disk", found, "a run of a small model writes some hundred megabytes")
    } else {
        Check::ok("disk", found)
    })
}

async fn store(session: &Session) -> Vec<Check> {
    if let Some(folder) = session.store_folder()
        && !folder.exists()
    {
        let found = format!("{} is not there yet", folder.display());
        return vec![Check::note("store", found, "agrpo run FILE creates it")];
    }
    let opened = async {
        let store = session.open_store().await?;
        store.objects.check().await?;
        session.writable_store().await?;
        let mut checks =
            vec![Check::ok("store", format!("{} answers and can be written", store.url()))];
        // A folder has this machine's times.
        if session.store_folder().is_none() {
            let skew = store_skew(&store, &machine::clock()).await?;
            checks.push(clock(skew, &format!("that of {}", store.url())));
        }
        Ok::<_, Failure>(checks)
    };
    let advice = "check --store or AGRPO_STORE and, for s3, the AWS_* variables";
    opened.await.unwrap_or_else(|error| vec![Check::bad("store", &error, advice)])
}

/// A check for the server, and one for each setting that is wrong.
async fn redis(session: &Session) -> Vec<Check> {
    let is_asked = session.names_redis();
    let objection = |error: JobsError, advice: &str| match is_asked {
        true => Check::bad("redis", &error.into(), advice),
        false => Check::note("redis", error.to_string(), OPTIONAL),
    };
    let away = "check --redis or AGRPO_REDIS, and that the server runs";
    let fleet = match session.fleet().await {
        Ok(fleet) => fleet,
        Err(error) => return vec![objection(error, away)],
    };
    let findings = inspect(&fleet, &machine::environment().worker).await.into_iter();
    let check = |finding: Finding| match finding.error {
        // Its message already says what to do.
        Some(error) => objection(error, ""),
        None if finding.advice.is_empty() => Check::ok("redis", finding.found),
        None => Check::note("redis", finding.found, finding.advice),
    };
    let mut checks: Vec<Check> = findings.map(check).collect();
    match clock_skew(&fleet, &machine::clock()).await {
        Ok(skew) => {
            let check = clock(skew, &format!("that of Redis at {}", fleet.address()));
            let unasked = !is_asked && check.exit != Exit::Done;
            checks.push(if unasked { Check::note("clock", check.found, OPTIONAL) } else { check });
        }
        Err(error) => checks.push(objection(error, "")),
    }
    checks
}

/// Compares this machine's clock with another.
fn clock(Skew { ahead_ms, is_too_much }: Skew, other: &str) -> Check {
    if !is_too_much {
        return Check::ok("clock", format!("this machine's agrees with {other}"));
    }
    let seconds = Duration::from_millis(ahead_ms.unsigned_abs()).as_secs_f64();
    let side = if ahead_ms > 0 { "ahead of" } else { "behind" };
    let found = format!("this machine's clock is {seconds:.1} s {side} {other}");
    let advice = "workers refuse more than 4 s: set both by NTP (`timedatectl set-ntp true`)";
    Check::bad("clock", &Failure::unavailable(found), advice)
}

fn describe(checks: &[Check]) -> String {
    let line = |check: &Check| {
        let verdict = match check.verdict {
            Verdict::Ok => "ok  ",
            Verdict::Note => "note",
            Verdict::Bad => "BAD ",
        };
        let advice =
            if check.advice.is_empty() { String::new() } else { format!("; {}", check.advice) };
        format!("{verdict}  {:<9}  {}{advice}", check.name, check.found)
    };
    checks.iter().map(line).collect::<Vec<_>>().join("\n")
}
