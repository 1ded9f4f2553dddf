//! Every decoder with every shape, on the smallest stack of a thread that decodes. One test, and so one process, whose
//! peak of memory is checked at the end.

use agrpo_decoders::{DECODERS, shapes};

/// As small as the stack of any thread that decodes.
const STACK: usize = 2 << 20;
/// What all decoders take at their peak, shapes included: the longest row is 17 MiB.
const MOST_KIB: u64 = 2 << 20;

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux says it");
    let line =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("of every process");
    line.trim().trim_end_matches(" kB").parse().expect("a number of kB")
}

#[test]
fn no_shape_ends_the_process_or_fills_its_memory() {
    let all = shapes();
    for decoder in &DECODERS {
        for (name, bytes) in &all {
            let before = peak_kib();
            let bytes = bytes.clone();
            let accepts = decoder.accepts;
            let worker = std::thread::Builder::new().stack_size(STACK);
            let worker = worker.spawn(move || accepts(&bytes)).unwrap();
            worker.join().unwrap_or_else(|_| panic!("{} panicked at {name}", decoder.name));
            let after = peak_kib();
            assert!(after < MOST_KIB, "{}, {name}: {before} to {after} KiB", decoder.name);
        }
    }
}
