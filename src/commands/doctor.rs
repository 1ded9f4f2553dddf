//! `agrpo doctor`: what this machine and the services can do, and what to do where they cannot.
//!
//! Changes nothing: the store and Redis are written to and cleaned again. A Redis that nobody asked for may be missing, since `agrpo run` needs none.

mod redis;

use agrpo_jobs::Store;
use agrpo_spec::Numerics;
use agrpo_stages::Device;
use serde::Serialize;

use crate::cli::{DoctorArgs, VERSION};
use crate::commands::{block_on, local_folder};
use crate::exit::{Exit, Failure};
use crate::gpu::Gpu;
use crate::libtorch::CudaBuild;
use crate::machine;
use crate::numerics;
use crate::output;
use crate::place::Place;
use crate::settings::Settings;

mod rows;

/// Less free space than this is worth a word.
const LOW_DISK_BYTES: u64 = 1 << 30;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    /// Not good, but nothing that was asked for needs it.
    Note,
    Bad,
}

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

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Answer {
    healthy: bool,
    checks: Vec<Check>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Ok,
            found: found.into(),
            advice: String::new(),
            exit: Exit::Done,
        }
    }

    fn note(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { verdict: Verdict::Note, advice: advice.into(), ..Self::ok(name, found) }
    }

    fn bad(name: &'static str, failure: &Failure, advice: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Bad,
            advice: advice.into(),
            // Whatever is wrong with a need counts as that need not being there.
            exit: if failure.exit() == Exit::Data { Exit::Data } else { Exit::Unavailable },
            ..Self::ok(name, failure.message())
        }
    }
}

/// Runs every check; one that fails does not hide the next.
pub(super) fn doctor(args: &DoctorArgs, settings: &Settings) -> Result<Exit, Failure> {
    if let Some(class) = args.rows {
        return rows::compute(class, settings);
    }
    let (class, gpu) = graphics(args, settings)?;
    let rows = rows::begin();
    let services = async { Ok((store(args, settings).await, redis::redis(args, settings).await)) };
    let (store, redis) = block_on(services)?;
    let mut checks = vec![
        Check::ok("agrpo", VERSION),
        Check::ok("libtorch", agrpo_stages::libtorch_version()),
        processor(),
        Check::ok("cores", format!("{}, so as many stages at a time", machine::cores())),
        Check::ok("numerics", format!("{class}: {}", numerics::describe(class))),
    ];
    checks.extend(rows.end());
    checks.extend(gpu);
    checks.extend(disk(args, settings));
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

/// What is there to compute on a GPU with, and the class that this process is in for finding out. Missing
/// it is bad where it was asked for.
fn graphics(args: &DoctorArgs, settings: &Settings) -> Result<(Numerics, Vec<Check>), Failure> {
    let (number, is_asked) = match args.device.device {
        Device::Cpu => (0, false),
        Device::Cuda(number) => (number, true),
    };
    let not_there = |name, failure: &Failure, advice: &str| match is_asked {
        true => Check::bad(name, failure, advice),
        false => Check::note(name, failure.message(), "only --device cuda:N needs it"),
    };
    let place = Place::find(Device::Cuda(number), settings);
    let gpu = match &place {
        Ok(Place { gpu: Some(gpu), .. }) => Check::ok("gpu", describe_gpu(gpu)),
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
    match place {
        Ok(place) if is_asked && all_there => {
            let class = place.class().unwrap_or_default();
            checks.push(match place.enter(settings, class, None) {
                Ok(()) => Check::ok("device", format!("{} computes {class}", place.device)),
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

/// Free space where a local store is or would be.
fn disk(args: &DoctorArgs, settings: &Settings) -> Option<Check> {
    let folder = local_folder(&settings.store(args.store.store.as_deref()).value)?;
    let folder = std::path::absolute(folder).ok()?;
    let free = machine::free_bytes(&folder)?;
    let found = format!("{} free for {}", output::size(free), folder.display());
    Some(if free < LOW_DISK_BYTES {
        Check::note("disk", found, "a run of a small model writes some hundred megabytes")
    } else {
        Check::ok("disk", found)
    })
}

async fn store(args: &DoctorArgs, settings: &Settings) -> Vec<Check> {
    let wanted = settings.store(args.store.store.as_deref());
    if let Some(folder) = local_folder(&wanted.value)
        && !folder.exists()
    {
        return vec![Check::note(
            "store",
            format!("{} is not there yet", folder.display()),
            "agrpo run FILE creates it",
        )];
    }
    let opened = async {
        let store = Store::open(&wanted.value, &settings.object_store_options()).await?;
        store.check().await?;
        store.check_creates(&machine::environment().worker).await?;
        let mut checks =
            vec![Check::ok("store", format!("{} answers and can be written", store.url()))];
        // A folder is dated by this machine.
        if local_folder(&wanted.value).is_none() {
            let skew = agrpo_jobs::store_skew(&store, &machine::clock()).await?;
            checks.push(redis::clock(skew, &format!("that of {}", store.url())));
        }
        Ok::<_, agrpo_jobs::JobsError>(checks)
    };
    opened.await.unwrap_or_else(|error| {
        vec![Check::bad(
            "store",
            &error.into(),
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
