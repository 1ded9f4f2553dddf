//! Seconds and the peak of memory of an update of LLaDA-8B's adapter, 176 million numbers, from inputs in memory to
//! outputs in memory.
//!
//! `cargo bench --package agrpo-lab --bench update -- 2` on two threads; on one by default. Takes 8 GB of memory.
//! Measures neither storage nor the hashes of the outputs. The peak is to be compared with what
//! `agrpo run jobs/runs/llada-8b-gsm8k.toml --dry-run` says of an update, and with the inputs beside it.

#![expect(clippy::print_stdout, reason = "a benchmark's output is its table")]

use std::{num::NonZeroUsize, time::Instant};

use agrpo_lab::gpu_bench::{AdapterUpdate, Load};

fn main() {
    agrpo_compute::use_one_thread();
    let asked = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let threads =
        asked.map_or(NonZeroUsize::MIN, |count| count.parse().expect("a number of threads"));
    let update = AdapterUpdate::prepare(&Load::llada_8b(), threads).expect("a valid update");
    // Policy, moments and gradient in memory, of which a run reads windows.
    let inputs = 4 * size_of::<f32>() * update.numbers;
    for _ in 0..3 {
        let start = Instant::now();
        update.take(threads).expect("a valid update");
        let seconds = start.elapsed().as_secs_f64();
        println!("update of {} numbers on {threads} threads: {seconds:.2} s", update.numbers);
        println!("  peak {} MiB, of which inputs {} MiB", peak() >> 20, inputs >> 20);
    }
}

/// `VmHWM` in bytes, so Linux only.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux");
    let kib = line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok());
    kib.expect("a number of KiB") << 10
}
