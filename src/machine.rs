//! This machine and this program: processor, name, cores, memory, free disk space, clock and version. The only file
//! that reads the clock. Manifests record these facts for people; no spec has them.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use agrpo_spec::Environment;
use agrpo_store::Clock;
use agrpo_view::listener::Limits;

use crate::exit::{Failure, cannot};

/// Version and commit of the program.
pub(crate) const VERSION: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (", env!("AGRPO_COMMIT"), ")");

pub(crate) fn clock() -> Clock {
    Arc::new(unix_ms)
}

/// Returns the seconds since this call, with more digits than the clock.
pub(crate) fn stopwatch() -> impl Fn() -> f64 {
    let start = Instant::now();
    move || start.elapsed().as_secs_f64()
}

#[expect(clippy::disallowed_methods, reason = "the clock that everything else receives")]
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What manifests record about the worker that computed a stage. Its name is unique to this process.
pub(crate) fn environment() -> Environment {
    let host = host();
    Environment {
        agrpo: VERSION.to_owned(),
        libtorch: agrpo_compute::libtorch_version().to_owned(),
        cpu: cpu(),
        worker: format!("{host}-{}-{:x}", std::process::id(), unix_ms()),
        host,
        platform: format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
        ..Environment::default()
    }
}

/// The machine's name, with every character replaced that a key may not have.
fn host() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
    if name.is_empty() { "unnamed".to_owned() } else { name }
}

/// Names by which clients may address this machine.
pub(crate) fn names() -> [String; 2] {
    let host = host();
    [host.split('.').next().unwrap_or_default().to_owned(), host]
}

/// The limits of a listener, from the number of files that this process may open.
pub(crate) fn listener_limits() -> Limits {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    Limits::of_files(files.unwrap_or(u64::MAX))
}

/// The processor's name, as the kernel gives it.
pub(crate) fn cpu() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    line.map_or_else(|| "unknown".to_owned(), |(_, name)| name.trim().to_owned())
}

/// Thirty-two hexadecimal digits from the system's random generator, as a secret.
pub(crate) fn random_token() -> Result<String, Failure> {
    let mut bytes = [0; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(cannot("draw random bytes from the system"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Cores that this process may use, by affinity and by control group.
pub(crate) fn cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// Threads that compute: one on a GPU, else as many as asked, or one for each core.
pub(crate) fn threads(asked: Option<u16>, is_gpu: bool) -> NonZeroUsize {
    let asked = asked.and_then(|count| NonZeroUsize::new(count.into()));
    if is_gpu { NonZeroUsize::MIN } else { asked.unwrap_or_else(cores) }
}

/// Bytes of memory that can be allocated without swapping, as the kernel estimates them.
pub(crate) fn available_memory() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

/// Whether the processor has AVX-512: results do not depend on it, only their time.
pub(crate) fn has_avx512() -> bool {
    std::is_x86_feature_detected!("avx512f")
}

/// Bytes free on the disk of this path, or of its nearest parent that exists.
pub(crate) fn free_bytes(path: &Path) -> Option<u64> {
    let existing = path.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("."));
    let disk = rustix::fs::statvfs(existing).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}
