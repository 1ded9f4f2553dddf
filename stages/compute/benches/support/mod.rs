//! What the benchmarks share: their arguments, and a median.

use std::{num::NonZeroUsize, time::Instant};

/// The number after `--threads`, or `default`; and the arguments that are no options.
pub(crate) fn arguments(default: NonZeroUsize) -> (NonZeroUsize, Vec<String>) {
    let mut arguments = std::env::args().skip(1);
    let (mut threads, mut named) = (default, vec![]);
    while let Some(argument) = arguments.next() {
        if argument == "--threads" {
            let count = arguments.next().and_then(|count| count.parse().ok());
            threads = count.expect("--threads takes a number above 0");
        } else if !argument.starts_with('-') {
            named.push(argument);
        }
    }
    (threads, named)
}

/// Seconds of a call: the median of five.
pub(crate) fn seconds(mut call: impl FnMut()) -> f64 {
    let one = |_| {
        let start = Instant::now();
        call();
        start.elapsed().as_secs_f64()
    };
    let mut all: Vec<f64> = (0..5).map(one).collect();
    all.sort_by(f64::total_cmp);
    all[2]
}
