//! Where the time goes, for benchmarks: seconds in each kind of kernel, of all threads together. Reads no clock of its
//! own: nothing is measured until a benchmark hands one over.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Kinds of kernels. What is none of them is libtorch's, or the program's around it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Phase {
    /// Products of linear layers.
    Products,
    /// Rotations and attention, with their small products.
    Attention,
    /// Norms and gates.
    ElementWise,
    /// Distributions over the vocabulary: tokens in the sampler, log-probabilities in the learner.
    Choice,
}

/// How many phases there are.
pub const PHASES: usize = 4;

static CLOCK: OnceLock<fn() -> u64> = OnceLock::new();
static SPENT: [AtomicU64; PHASES] = [const { AtomicU64::new(0) }; PHASES];
/// Multiplications and additions of products.
static OPERATIONS: AtomicU64 = AtomicU64::new(0);

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    /// In products, attention, norms and gates, and distributions.
    pub seconds: [f64; PHASES],
    /// Multiplications and additions of products.
    pub operations: f64,
}

/// Measures from now on by a clock that counts nanoseconds.
pub fn measure_by(clock: fn() -> u64) {
    // A second clock would count the same.
    let _ = CLOCK.set(clock);
}

/// What was measured since the last call.
pub fn spent() -> Spent {
    let take = |number: &AtomicU64| number.swap(0, Relaxed) as f64;
    Spent {
        seconds: SPENT.each_ref().map(|spent| take(spent) * 1e-9),
        operations: take(&OPERATIONS),
    }
}

/// Computes something that belongs to a phase. Phases do not contain each other.
pub(crate) fn measured<T>(phase: Phase, compute: impl FnOnce() -> T) -> T {
    let Some(clock) = CLOCK.get() else { return compute() };
    let begin = clock();
    let result = compute();
    SPENT[phase as usize].fetch_add(clock() - begin, Relaxed);
    result
}

/// A product of these sizes: each number of the result is a sum of so many terms.
pub(super) fn product([rows, terms, columns]: [usize; 3], compute: impl FnOnce()) {
    measured(Phase::Products, compute);
    OPERATIONS.fetch_add(2 * (rows * terms * columns) as u64, Relaxed);
}
