//! `agrpo doctor`: checks this machine and the services, and says what to do where a check fails.
//!
//! Changes nothing: what it writes to the store and to Redis it deletes again. A Redis that is only the default
//! may be missing, since `agrpo run` needs none.

mod check;
mod redis;
mod rows;

use agrpo_compute::Device;
use agrpo_spec::Numerics;
use serde::Serialize;

use self::check::{Check, Verdict};
use crate::args::DoctorArgs;
use crate::device::ComputeDevice;
use crate::exit::{Exit, Failure};
use crate::gpu::Gpu;
use crate::libtorch::CudaBuild;
use crate::machine::{self, VERSION};
use crate::numerics;
use crate::output;
use crate::session::Session;
use crate::settings::Settings;

/// Less free space than this gives a note.
const LOW_DISK_BYTES: u64 = 1 << 30;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Answer {
    healthy: bool,
    checks: Vec<Check>,
}

/// Runs every check; one that fails does not hide the next.
pub(super) fn doctor(args: &DoctorArgs, session: &Session) -> Result<Exit, Failure> {
    if let Some(class) = args.rows {
        return rows::compute(class, &session.settings);
    }
    let (class, gpu) = graphics(args, &session.settings)?;
    let rows = rows::begin();
    let services = async { Ok((store(session).await, redis::redis(session).await)) };
    let (store, redis) = session.block_on(services)?;
    let mut checks = vec![
        Check::ok("agrpo", VERSION),
        Check::ok("libtorch", agrpo_compute::libtorch_version()),
        processor(),
        Check::ok("cores", format!("{}, so as many stages at a time", machine::cores())),
        Check::ok("numerics", format!("{class}: {}", numerics::describe(class))),
    ];
    checks.extend(rows.end());
    checks.extend(gpu);
    checks.extend(disk(session));
    checks.extend(store.into_iter().chain(redis));
    let exit = checks.iter().map(|check| check.exit).find(|&exit| exit != Exit::Done);
    let exit = exit.unwrap_or(Exit::Done);
    if args.json.json {
        output::json(&Answer { healthy: exit == Exit::Done, checks })?;
    } else {
        output::line(describe(&checks))?;
    }
    Ok(exit)
}

/// Checks the GPU and its libtorch, and returns the class that the process entered for that. A missing GPU is bad
/// only if --device names it.
fn graphics(args: &DoctorArgs, settings: &Settings) -> Result<(Numerics, Vec<Check>), Failure> {
    let (number, is_asked) = match args.device.device {
        Device::Cpu => (0, false),
        Device::Cuda(number) => (number, true),
    };
    let not_there = |name, failure: &Failure, advice: &str| match is_asked {
        true => Check::bad(name, failure, advice),
        false => Check::note(name, failure.message(), "only --device cuda:N needs it"),
    };
    let device = ComputeDevice::find(Device::Cuda(number), settings);
    let gpu = match &device {
        Ok(ComputeDevice { gpu: Some(gpu), .. }) => Check::ok("gpu", describe_gpu(gpu)),
        Ok(_) => return Err(Failure::new(Exit::Unexpected, "a GPU without a description")),
        Err(failure) => not_there("gpu", failure, "install NVIDIA's driver, or use --device cpu"),
    };
    let cuda = match CudaBuild::find(settings) {
        Ok(build) => Check::ok(
            "cuda",
            format!("libtorch {} in {}", build.version, build.libraries.display()),
        ),
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
            numerics::enter(settings, Numerics::CpuPortable, None, None)?;
            Ok((Numerics::CpuPortable, checks))
        }
    }
}

fn describe_gpu(gpu: &Gpu) -> String {
    let (memory, used) =
        (output::size(gpu.memory), gpu.used().map_or_else(|| "unknown".into(), output::size));
    let (name, class, driver) = (&gpu.name, gpu.class(), &gpu.driver);
    format!("{name}, {class}, {memory} of which {used} are in use, driver {driver}")
}

fn processor() -> Check {
    let (avx2, avx512) = machine::vector_instructions();
    let name = machine::cpu();
    if avx2 {
        let has = if avx512 { "avx2, avx512" } else { "avx2" };
        Check::ok("processor", format!("{name}, {has}"))
    } else {
        let failure = Failure::new(Exit::Unavailable, format!("{name}, without avx2"));
        Check::bad(
            "processor",
            &failure,
            "numerics class cpu-portable needs a processor with AVX2 and FMA",
        )
    }
}

/// Free space on the disk of a local store.
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
        return vec![Check::note(
            "store",
            format!("{} is not there yet", folder.display()),
            "agrpo run FILE creates it",
        )];
    }
    let opened = async {
        let store = session.open_store().await?;
        store.check().await?;
        session.writable_store().await?;
        let mut checks =
            vec![Check::ok("store", format!("{} answers and can be written", store.url()))];
        // A folder has this machine's times.
        if session.store_folder().is_none() {
            let skew = agrpo_fleet::store_skew(&store, &machine::clock()).await?;
            checks.push(redis::clock(skew, &format!("that of {}", store.url())));
        }
        Ok::<_, Failure>(checks)
    };
    opened.await.unwrap_or_else(|error| {
        vec![Check::bad(
            "store",
            &error,
            "check --store or AGRPO_STORE and, for s3, the AWS_* variables",
        )]
    })
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
