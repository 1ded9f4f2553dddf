//! The backward pass of attention.

use super::super::lanes::{exp, sum_of_products};
use super::super::tiles::{Left, multiply};
use super::forward::scores;
use super::head::{Head, cleared, rotate_back};
use super::task::{QUERIES, Source, View};

/// Buffers of the backward pass, beside those of [`Head`].
#[derive(Default)]
struct Back {
    /// Keys x E, rotated.
    k: Vec<f32>,
    /// E x keys.
    v_t: Vec<f32>,
    /// Keys x E: gradients of rotated keys, and of values.
    dk: Vec<f32>,
    dv: Vec<f32>,
    /// Queries x E: gradients of the result, and of rotated queries.
    dy: Vec<f32>,
    dq: Vec<f32>,
    /// Queries x keys.
    ds: Vec<f32>,
}

/// Writes the gradients of the inputs, from that of the result and the rows' `stats`.
#[target_feature(enable = "avx2,fma")]
pub(super) fn backward(
    task: &View<'_>,
    dy: &[f32],
    stats: &[[f32; 2]],
    gradients: &mut [&mut [f32]],
) {
    // Padding is attended to by no query, and an input may have more heads than those that take part.
    let kv_heads = task.heads / task.sharing;
    let parts = [(task.q, task.heads), (task.k, kv_heads), (task.v, kv_heads)];
    let is_whole = |number: usize| {
        let own = parts.iter().filter(|(part, _)| part.number == number);
        let all = own.clone().next().map_or(0, |(part, _)| part.heads);
        task.attended.is_none() && own.map(|(_, heads)| heads).sum::<usize>() == all
    };
    for (number, gradient) in gradients.iter_mut().enumerate() {
        if !is_whole(number) {
            gradient.fill(0.0);
        }
    }
    let (mut head, mut back) = (Head::default(), Back::default());
    for sequence in 0..task.batch {
        for number in 0..task.heads {
            head.gather(task, sequence, number);
            back.gather(task, &head);
            for from in (0..task.queries).step_by(QUERIES) {
                let to = (from + QUERIES).min(task.queries);
                let rows = scores(task, &mut head, from, to);
                let first = (sequence * task.heads + number) * task.queries;
                probabilities(task, &mut head, &stats[first + from..first + to], (from, rows));
                back.gather_results(task, &head, dy, (from, to));
                back.differentiate(task, &head, (rows, to - from), from > 0);
                for (n, query) in (from..to).enumerate() {
                    let into = gradient_of(
                        task,
                        task.q,
                        task.queries,
                        (sequence, query, number),
                        gradients,
                    );
                    let position = task.position(sequence, query);
                    rotate_back(task, position, &back.dq[n * head.wide..][..task.width], into);
                    let scale = 1.0 / (task.width as f32).sqrt();
                    into.iter_mut().for_each(|number| *number *= scale);
                }
            }
            back.write_keys(task, &head, gradients);
        }
    }
}

/// Scores to probabilities; rows that are no queries, and columns that are no keys, are 0.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn probabilities(
    task: &View<'_>,
    head: &mut Head,
    stats: &[[f32; 2]],
    (from, rows): (usize, usize),
) {
    for (n, row) in head.scores.chunks_exact_mut(head.long).take(rows).enumerate() {
        let Some([most, inverse]) = stats.get(n) else {
            row.fill(0.0);
            continue;
        };
        let seen = task.seen(&head.attended, head.sequence, from + n);
        row[seen..].fill(f32::NEG_INFINITY);
        for score in row {
            *score = exp(*score - most) * inverse;
        }
    }
}

fn gradient_of<'g>(
    task: &View<'_>,
    source: Source,
    length: usize,
    at: (usize, usize, usize),
    gradients: &'g mut [&mut [f32]],
) -> &'g mut [f32] {
    let start = task.start(source, length, at);
    &mut gradients[source.number][start..start + task.width]
}

impl Back {
    fn gather(&mut self, task: &View<'_>, head: &Head) {
        let keys = head.long;
        if self.k.is_empty() || task.attended.is_some() {
            let rows = head.scores.len() / keys;
            cleared(&mut self.k, keys * head.wide);
            cleared(&mut self.v_t, task.width * keys);
            cleared(&mut self.dk, keys * head.wide);
            cleared(&mut self.dv, keys * head.wide);
            cleared(&mut self.dy, rows * head.wide);
            cleared(&mut self.dq, rows * head.wide);
            cleared(&mut self.ds, rows * keys);
        }
        for e in 0..task.width {
            for n in 0..head.attended.len() {
                self.k[n * head.wide + e] = head.k_t[e * keys + n];
                self.v_t[e * keys + n] = head.v[n * head.wide + e];
            }
        }
    }

    /// Writes the gradients of a head's keys and values, or adds them to those of the heads that share them.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn write_keys(&self, task: &View<'_>, head: &Head, gradients: &mut [&mut [f32]]) {
        let is_first = head.head.is_multiple_of(task.sharing);
        let mut dk = vec![0f32; task.width];
        for (n, &key) in head.attended.iter().enumerate() {
            let own = n * head.wide..n * head.wide + task.width;
            rotate_back(task, key, &self.dk[own.clone()], &mut dk);
            let at = (head.sequence, key, head.head / task.sharing);
            for (source, own) in [(task.k, &dk[..]), (task.v, &self.dv[own])] {
                let into = gradient_of(task, source, task.keys, at, gradients);
                if is_first {
                    into.copy_from_slice(own);
                } else {
                    into.iter_mut().zip(own).for_each(|(into, own)| *into += own);
                }
            }
        }
    }

    /// The gradients of the results of queries `from..to`, and zeros up to the next tile.
    fn gather_results(
        &mut self,
        task: &View<'_>,
        head: &Head,
        dy: &[f32],
        (from, to): (usize, usize),
    ) {
        for (n, query) in (from..to).enumerate() {
            let start =
                ((head.sequence * task.queries + query) * task.heads + head.head) * task.width;
            self.dy[n * head.wide..][..task.width].copy_from_slice(&dy[start..start + task.width]);
        }
        self.dy[(to - from) * head.wide..].fill(0.0);
    }

    /// dq is written; so are dv and dk, or they are added to.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn differentiate(
        &mut self,
        task: &View<'_>,
        head: &Head,
        (rows, queries): (usize, usize),
        is_added: bool,
    ) {
        let (long, wide) = (head.long, head.wide);
        multiply(
            Left::Columns(&head.scores, long),
            (long, queries),
            &self.dy,
            (&mut self.dv, wide),
            is_added,
        );
        let left = Left::Rows(&self.dy, wide);
        multiply(left, (rows, task.width), &self.v_t, (&mut self.ds, long), false);
        let probabilities = head.scores.chunks_exact(long);
        for (p, ds) in probabilities.zip(self.ds.chunks_exact_mut(long)).take(rows) {
            let shared = sum_of_products(p, ds);
            for (ds, p) in ds.iter_mut().zip(p) {
                *ds = p * (*ds - shared);
            }
        }
        let left = Left::Rows(&self.ds, long);
        multiply(left, (rows, head.attended.len()), &self.k, (&mut self.dq, wide), false);
        multiply(
            Left::Columns(&self.ds, long),
            (long, queries),
            &head.q,
            (&mut self.dk, wide),
            is_added,
        );
    }
}
