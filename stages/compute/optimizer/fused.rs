//! AdamW's arithmetic, one loop that reads and writes every number once, on all threads.
//!
//! ```text
//! g = shrink gradient,   m = b1 m + (1 - b1) g,   v = b2 v + (1 - b2) g^2
//! p = (1 - decay) p - rate (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
//! ```
//! Everything is f32, without fused multiply-add; products, quotients and roots are correctly rounded by every
//! processor, so bits depend neither on the width of its vectors nor on the number of threads. Squares are summed in
//! f64 in a fixed order. Decides no rate, and checks nothing.

use std::sync::{Mutex, PoisonError};

use agrpo_spec::WINDOW;

use crate::error::Result;
use crate::tensors::{NamedTensors, singles_mut};
use crate::threads::Threads;

/// Numbers that one thread takes at a time: few enough that their memory stays in its cache.
const CHUNK: usize = 1 << 16;
/// Accumulators of a chunk's sum of squares; number n adds to lane n modulo this.
const LANES: usize = 16;

/// One tensor's parameters, moments and gradient, all of one length, and its decay.
#[derive(Debug)]
pub(super) struct Row<'a> {
    pub(super) parameter: &'a mut [f32],
    pub(super) moments: [&'a mut [f32]; 2],
    pub(super) gradient: &'a [f32],
    pub(super) decay: f32,
}

/// The factors of a step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Factors {
    pub(super) shrink: f32,
    pub(super) beta: [f32; 2],
    /// 1 - beta.
    pub(super) rest: [f32; 2],
    /// 1 - beta^t.
    pub(super) correction: [f32; 2],
    pub(super) eps: f32,
    pub(super) rate: f32,
}

/// Takes the step in place.
pub(super) fn step(rows: Vec<Row<'_>>, factors: &Factors, threads: &Threads) -> Result<()> {
    let mut chunks = vec![];
    for Row { parameter, moments: [first, second], gradient, decay } in rows {
        let moments = first.chunks_mut(CHUNK).zip(second.chunks_mut(CHUNK));
        let all = parameter.chunks_mut(CHUNK).zip(moments).zip(gradient.chunks(CHUNK));
        chunks.extend(all.map(|((parameter, (first, second)), gradient)| Row {
            parameter,
            moments: [first, second],
            gradient,
            decay,
        }));
    }
    let groups: Vec<_> =
        grouped(chunks, |row| row.gradient.len()).into_iter().map(Mutex::new).collect();
    let advance = |(): &mut (), n: usize| {
        // Each group is taken once.
        let mut group = groups[n].lock().unwrap_or_else(PoisonError::into_inner);
        group.iter_mut().for_each(|row| advance(row, factors));
        Ok(())
    };
    threads.in_order(groups.len(), || (), advance, |_, ()| Ok(()))
}

/// Neighbouring chunks in groups of no more numbers than a whole chunk has: a small tensor is not worth a thread.
fn grouped<T>(chunks: Vec<T>, numbers: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let (mut groups, mut last, mut taken) = (vec![], vec![], 0);
    for chunk in chunks {
        let more = numbers(&chunk);
        if taken + more > CHUNK {
            groups.push(std::mem::take(&mut last));
            taken = 0;
        }
        taken += more;
        last.push(chunk);
    }
    groups.push(last);
    groups
}

fn advance(row: &mut Row<'_>, factors: &Factors) {
    let Factors { shrink, beta: [beta1, beta2], rest: [rest1, rest2], .. } = *factors;
    let Factors { correction: [correction1, correction2], eps, rate, .. } = *factors;
    let kept = 1.0 - row.decay;
    let [first, second] = &mut row.moments;
    let moments = first.iter_mut().zip(second.iter_mut());
    for ((p, (m, v)), gradient) in row.parameter.iter_mut().zip(moments).zip(row.gradient) {
        let g = gradient * shrink;
        *m = *m * beta1 + g * rest1;
        *v = *v * beta2 + g * g * rest2;
        let direction = (*m / correction1) / ((*v / correction2).sqrt() + eps);
        *p = *p * kept - direction * rate;
    }
}

/// Calls `write` for every window of the tensors, side by side: with a tensor's place, the window's first number, and
/// the numbers, all of which it writes.
pub(crate) fn fill(
    tensors: &mut NamedTensors,
    write: impl Fn(usize, u64, &mut [f32]) -> Result<()> + Sync,
    threads: &Threads,
) -> Result<()> {
    let numbers = usize::try_from(WINDOW).expect("a window fits into memory") / size_of::<f32>();
    let mut windows = vec![];
    for (place, tensor) in tensors.values_mut().enumerate() {
        let all = singles_mut(tensor)?.chunks_mut(numbers).enumerate();
        windows.extend(all.map(|(n, window)| (place, (n * numbers) as u64, Mutex::new(window))));
    }
    let one = |(): &mut (), n: usize| {
        let (place, first, window) = &windows[n];
        // Each window is taken once.
        write(*place, *first, &mut window.lock().unwrap_or_else(PoisonError::into_inner))
    };
    threads.in_order(windows.len(), || (), one, |_, ()| Ok(()))
}

/// The sum of all squares: of each chunk, then of a group of chunks, then of all groups, in the order of the slices.
pub(super) fn sum_of_squares(slices: &[&[f32]], threads: &Threads) -> Result<f64> {
    let chunks = slices.iter().flat_map(|slice| slice.chunks(CHUNK)).collect();
    let groups: Vec<Vec<&[f32]>> = grouped(chunks, |chunk| chunk.len());
    let mut sum = 0.0;
    let add = |_, squares: f64| {
        sum += squares;
        Ok(())
    };
    let sum_of = |(): &mut (), n: usize| Ok(groups[n].iter().map(|chunk| squares(chunk)).sum());
    threads.in_order(groups.len(), || (), sum_of, add)?;
    Ok(sum)
}

fn squares(numbers: &[f32]) -> f64 {
    let mut lanes = [0.0; LANES];
    let (whole, rest) = numbers.as_chunks::<LANES>();
    for numbers in whole {
        for (lane, &number) in lanes.iter_mut().zip(numbers) {
            *lane += f64::from(number) * f64::from(number);
        }
    }
    for (lane, &number) in lanes.iter_mut().zip(rest) {
        *lane += f64::from(number) * f64::from(number);
    }
    lanes.iter().sum()
}
