//! A million damaged inputs to every decoder: no panic, no hang, no allocation beyond what its input excuses.
//!
//! `make fuzz [N=1000000] [SEED=1]`. The n-th input of a decoder follows from the seed alone. Each decoder runs in its
//! own process, so that a crash ends one decoder only; the input that caused it is computed again from its number and
//! written to a file. Counts the allocations of Rust's allocator: libtorch allocates no more than a file whose header
//! has been checked.

#![expect(clippy::print_stdout, reason = "a driver's output is its table")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use agrpo_decoders::{DECODERS, Decoder, Draw, edited, shapes};

/// The longest time of an input.
const PATIENCE: Duration = Duration::from_secs(5);
/// The number of the first input that is a shape; shapes come first.
const SHAPES: u64 = 1 << 32;
/// As small as the stack of any thread that decodes.
const STACK: usize = 2 << 20;

/// Bytes that are allocated now, and the most since the counter was reset.
static NOW: AtomicU64 = AtomicU64::new(0);
static MOST: AtomicU64 = AtomicU64::new(0);
/// When the current input began, in milliseconds since the start, and its number.
static SINCE: AtomicU64 = AtomicU64::new(0);
static NUMBER: AtomicU64 = AtomicU64::new(0);

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn took(bytes: usize) {
    let now = NOW.fetch_add(bytes as u64, Relaxed) + bytes as u64;
    MOST.fetch_max(now, Relaxed);
}

#[expect(
    unsafe_code,
    reason = "an allocator is counted where it is called; every call goes on to the system's"
)]
// SAFETY: the system's allocator answers every call with the caller's own arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both blocks are allocated while one is copied into the other.
        took(size);
        NOW.fetch_sub(layout.size() as u64, Relaxed);
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size() as u64, Relaxed);
        unsafe { System.dealloc(block, layout) }
    }
}

fn input(decoder: &Decoder, seed: u64, n: u64) -> Vec<u8> {
    if let Some(shape) = n.checked_sub(SHAPES) {
        let index = usize::try_from(shape).expect("a few");
        return shapes().swap_remove(index).1;
    }
    let mut draw = Draw::new(seed, n);
    let first = usize::try_from(draw.number() >> 32).expect("32 bits");
    let edits = draw.edits();
    edited(decoder.seeds(), decoder.form, first, &edits)
}

/// The measurements of a decoder.
#[derive(Default)]
struct Seen {
    accepted: u64,
    slowest: Duration,
    /// The most bytes for each byte of input beyond the floor, and the most at all.
    ratio: f64,
    most: u64,
    faults: Vec<(u64, String)>,
}

/// Runs inputs `0..count` in this process.
fn try_all(decoder: &'static Decoder, seed: u64, count: u64, file: &File) -> Seen {
    let mut seen = Seen::default();
    // Values that are computed once do not count for an input.
    assert!(decoder.seeds().iter().all(|sound| (decoder.accepts)(sound)), "examples are sound");
    let start = Instant::now();
    for n in (SHAPES..SHAPES + shapes().len() as u64).chain(0..count) {
        let bytes = input(decoder, seed, n);
        file.write_at(&n.to_le_bytes(), 0).expect("a temporary file takes eight bytes");
        NUMBER.store(n, Relaxed);
        SINCE.store(millis(start), Relaxed);
        let before = NOW.load(Relaxed);
        MOST.store(before, Relaxed);
        let began = Instant::now();
        let accepted = std::panic::catch_unwind(|| (decoder.accepts)(&bytes));
        let taken = began.elapsed();
        let most = MOST.load(Relaxed).saturating_sub(before);
        seen.most = seen.most.max(most);
        seen.slowest = seen.slowest.max(taken);
        let beyond = most.saturating_sub(decoder.floor) as f64;
        seen.ratio = seen.ratio.max(beyond / (bytes.len().max(1) as f64));
        match accepted {
            Ok(accepted) => seen.accepted += u64::from(accepted),
            Err(_) => seen.faults.push((n, "panicked".to_owned())),
        }
        if most > decoder.most(bytes.len()) {
            let fault = format!("allocated {most} bytes for {} of input", bytes.len());
            seen.faults.push((n, fault));
        }
        if seen.faults.len() >= 10 {
            break;
        }
    }
    seen
}

fn millis(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Runs one decoder; exits with 1 if something is wrong.
fn child(decoder: &'static Decoder, seed: u64, count: u64, path: &Path) -> ExitCode {
    if std::env::args().all(|argument| argument != "--panics") {
        std::panic::set_hook(Box::new(|_| {}));
    }
    let file = File::options().write(true).open(path).expect("the parent made it");
    let start = Instant::now();
    let worker = std::thread::Builder::new()
        .stack_size(STACK)
        .spawn(move || try_all(decoder, seed, count, &file))
        .expect("a thread");
    while !worker.is_finished() {
        std::thread::sleep(Duration::from_millis(20));
        let waited = millis(start).saturating_sub(SINCE.load(Relaxed));
        let n = NUMBER.load(Relaxed);
        if n > 0 && Duration::from_millis(waited) > PATIENCE + Duration::from_secs(1) {
            println!("{:<18} input {n}: took more than {PATIENCE:?}", decoder.name);
            return ExitCode::FAILURE;
        }
    }
    let seen = worker.join().expect("panics are caught input by input");
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{:<18} {count:>9} {:>9} {seconds:>8.1} {:>12.1} {:>8.1} {:>10}",
        decoder.name,
        seen.accepted,
        seen.slowest.as_secs_f64() * 1e3,
        seen.ratio,
        seen.most
    );
    for (n, fault) in &seen.faults {
        println!("{:<18} input {n}: {fault}", decoder.name);
    }
    if seen.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Writes an input to a file.
fn saved(decoder: &Decoder, n: u64, bytes: &[u8]) -> PathBuf {
    let path = std::env::temp_dir().join(format!("agrpo-fuzz-{}-{n}.bin", decoder.name));
    std::fs::write(&path, bytes).expect("room for the input");
    path
}

struct Asked {
    count: u64,
    seed: u64,
    only: Option<String>,
    child: Option<PathBuf>,
    input: Option<u64>,
}

fn asked() -> Asked {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| {
        let index = arguments.iter().position(|argument| argument == name)?;
        arguments.get(index + 1).cloned()
    };
    let number = |name: &str| value(name).map(|text| text.parse().expect("a number"));
    Asked {
        count: number("--count").unwrap_or(1_000_000),
        seed: number("--seed").unwrap_or(1),
        only: value("--decoder"),
        child: value("--child").map(PathBuf::from),
        input: number("--input"),
    }
}

fn main() -> ExitCode {
    let asked = asked();
    let chosen: Vec<&'static Decoder> = match &asked.only {
        None => DECODERS.iter().collect(),
        Some(name) => vec![Decoder::named(name).expect("a decoder's name")],
    };
    if let Some(n) = asked.input {
        let bytes = input(chosen[0], asked.seed, n);
        let saved = saved(chosen[0], n, &bytes);
        println!("{} bytes, saved as {}", bytes.len(), saved.display());
        println!("{}", if (chosen[0].accepts)(&bytes) { "accepted" } else { "refused" });
        return ExitCode::SUCCESS;
    }
    if let Some(path) = &asked.child {
        let count = asked.count.div_ceil(chosen[0].slowness.into());
        return child(chosen[0], asked.seed, count, path);
    }
    println!("seed {}", asked.seed);
    println!(
        "{:<18} {:>9} {:>9} {:>8} {:>12} {:>8} {:>10}",
        "decoder", "inputs", "accepted", "seconds", "slowest ms", "ratio", "most bytes"
    );
    let folder = std::env::temp_dir();
    let mut sound = true;
    for decoder in chosen {
        sound &= in_a_process(decoder, &asked, &folder);
    }
    if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs a decoder in its own process; the input that crashed it is written into `folder`.
fn in_a_process(decoder: &Decoder, asked: &Asked, folder: &Path) -> bool {
    let path = folder.join(format!("agrpo-fuzz-{}-{}", std::process::id(), decoder.name));
    std::fs::write(&path, [0; 8]).expect("room for eight bytes");
    let program = std::env::current_exe().expect("this program's own path");
    let status = Command::new(program)
        .args(["--decoder", decoder.name, "--count", &asked.count.to_string()])
        .args(["--seed", &asked.seed.to_string(), "--child"])
        .arg(&path)
        .args(std::env::args().filter(|argument| argument == "--panics"))
        .status()
        .expect("this program starts");
    if status.code().is_none() {
        let last = std::fs::read(&path).expect("was written");
        let n = u64::from_le_bytes(last.try_into().expect("eight bytes"));
        let saved = saved(decoder, n, &input(decoder, asked.seed, n));
        println!(
            "{:<18} input {n}: ended the process ({status}); saved as {}",
            decoder.name,
            saved.display()
        );
    }
    drop(std::fs::remove_file(&path));
    status.success()
}
