//! The forward pass of attention.

use super::super::lanes::{LANES, exp, largest, sum};
use super::super::tiles::{Left, multiply};
use super::head::Head;
use super::task::{QUERIES, View};

/// Writes y, B x Q x H x E; and the largest score of each row and 1 / the sum of its exponentials, where `stats` has room
/// for B x H x Q.
#[target_feature(enable = "avx2,fma")]
pub(super) fn forward(task: &View<'_>, y: &mut [f32], stats: &mut [[f32; 2]]) {
    let mut head = Head::default();
    let mut mixed = vec![];
    for sequence in 0..task.batch {
        for number in 0..task.heads {
            head.gather(task, sequence, number);
            mixed.resize(head.q.len(), 0.0);
            for from in (0..task.queries).step_by(QUERIES) {
                let to = (from + QUERIES).min(task.queries);
                let rows = scores(task, &mut head, from, to);
                let first = (sequence * task.heads + number) * task.queries;
                let mut inverse = [0f32; QUERIES];
                for (n, query) in (from..to).enumerate() {
                    let row = &mut head.scores[n * head.long..(n + 1) * head.long];
                    let found = exponentials(row, task.seen(&head.attended, sequence, query));
                    inverse[n] = found[1];
                    if !stats.is_empty() {
                        stats[first + query] = found;
                    }
                }
                let left = Left::Rows(&head.scores, head.long);
                multiply(
                    left,
                    (rows, head.attended.len()),
                    &head.v,
                    (&mut mixed, head.wide),
                    false,
                );
                for (n, query) in (from..to).enumerate() {
                    let start =
                        ((sequence * task.queries + query) * task.heads + number) * task.width;
                    let mixed = &mixed[n * head.wide..][..task.width];
                    for (y, x) in y[start..start + task.width].iter_mut().zip(mixed) {
                        *y = x * inverse[n];
                    }
                }
            }
        }
    }
}

/// Gathers queries `from..to` and computes their scores; the number of rows.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn scores(task: &View<'_>, head: &mut Head, from: usize, to: usize) -> usize {
    let rows = head.gather_queries(task, from, to);
    let left = Left::Rows(&head.q, head.wide);
    multiply(left, (rows, task.width), &head.k_t, (&mut head.scores, head.long), false);
    rows
}

/// Replaces the scores of a row by e^(score - largest), 0 behind the last key that it sees; gives the largest and 1 / the sum.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn exponentials(row: &mut [f32], keys: usize) -> [f32; 2] {
    row[keys..].fill(f32::NEG_INFINITY);
    let (rows, _) = row.as_chunks_mut::<LANES>();
    let mut most = [f32::NEG_INFINITY; LANES];
    for scores in rows.iter() {
        for n in 0..LANES {
            most[n] = if scores[n] > most[n] { scores[n] } else { most[n] };
        }
    }
    let most = largest(most);
    let mut sums = [0f32; LANES];
    for scores in rows {
        for n in 0..LANES {
            scores[n] = exp(scores[n] - most);
            sums[n] += scores[n];
        }
    }
    [most, 1.0 / sum(sums)]
}
