//! One head of one sequence: its keys and values, and some of its queries, gathered where they lie side by side.

use super::super::lanes::LANES;
use super::super::tiles::TILE;
use super::task::{QUERIES, Source, View};

/// Gathered numbers of one head. Padded with zeros to multiples of [`LANES`] columns and [`TILE`] rows.
#[derive(Default)]
pub(super) struct Head {
    pub(super) sequence: usize,
    pub(super) head: usize,
    pub(super) attended: Vec<usize>,
    /// E, padded.
    pub(super) wide: usize,
    /// Keys, padded.
    pub(super) long: usize,
    /// E x keys, rotated.
    pub(super) k_t: Vec<f32>,
    /// Keys x E.
    pub(super) v: Vec<f32>,
    /// Queries x E, rotated and divided by sqrt(E).
    pub(super) q: Vec<f32>,
    /// Queries x keys.
    pub(super) scores: Vec<f32>,
}

impl Head {
    /// Gathers the keys and values of a head.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn gather(&mut self, task: &View<'_>, sequence: usize, head: usize) {
        (self.sequence, self.head) = (sequence, head);
        if self.wide == 0 || task.attended.is_some() {
            self.attended = task.attended(sequence);
            self.wide = task.width.next_multiple_of(LANES);
            self.long = self.attended.len().max(1).next_multiple_of(LANES);
            let rows = task.queries.min(QUERIES).next_multiple_of(TILE);
            // Every head of a sequence overwrites the same numbers and leaves the same zeros.
            cleared(&mut self.k_t, task.width * self.long);
            cleared(&mut self.v, self.long * self.wide);
            cleared(&mut self.q, rows * self.wide);
            cleared(&mut self.scores, rows * self.long);
        }
        let mut rotated = vec![0f32; task.width];
        let head = head / task.sharing;
        for (n, &key) in self.attended.iter().enumerate() {
            rotate(task, key, row(task, task.k, task.keys, (sequence, key, head)), &mut rotated);
            for (e, &number) in rotated.iter().enumerate() {
                self.k_t[e * self.long + n] = number;
            }
            let v = row(task, task.v, task.keys, (sequence, key, head));
            self.v[n * self.wide..][..task.width].copy_from_slice(v);
        }
    }

    /// Gathers queries `from..to`; the number of rows that are computed.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn gather_queries(&mut self, task: &View<'_>, from: usize, to: usize) -> usize {
        let scale = 1.0 / (task.width as f32).sqrt();
        for (n, query) in (from..to).enumerate() {
            let into = &mut self.q[n * self.wide..][..task.width];
            let position = task.position(self.sequence, query);
            let q = row(task, task.q, task.queries, (self.sequence, query, self.head));
            rotate(task, position, q, into);
            into.iter_mut().for_each(|number| *number *= scale);
        }
        (to - from).next_multiple_of(TILE)
    }
}

/// Fills with zeros, as long as asked.
pub(super) fn cleared(numbers: &mut Vec<f32>, length: usize) {
    numbers.clear();
    numbers.resize(length, 0.0);
}

fn row<'a>(
    task: &'a View<'_>,
    source: Source,
    length: usize,
    at: (usize, usize, usize),
) -> &'a [f32] {
    let start = task.start(source, length, at);
    &task.inputs[source.number][start..start + task.width]
}

/// x cos + (x with its halves exchanged) sin.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn rotate(task: &View<'_>, position: usize, x: &[f32], into: &mut [f32]) {
    let (cos, sin) = angles(task, position);
    let (first, second) = sin.split_at(task.width / 2);
    turn(into, x, cos, [first, second]);
}

/// The gradient before the rotation, from that behind it.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn rotate_back(task: &View<'_>, position: usize, dy: &[f32], into: &mut [f32]) {
    let (cos, sin) = angles(task, position);
    let (first, second) = sin.split_at(task.width / 2);
    turn(into, dy, cos, [second, first]);
}

/// x cos + other sin for both halves, each of which is the other's other. In chunks of four: half a head is seldom a
/// multiple of more.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn turn(into: &mut [f32], x: &[f32], cos: &[f32], sins: [&[f32]; 2]) {
    let half = sins[0].len();
    let ((x_a, x_b), (cos_a, cos_b)) = (x.split_at(half), cos.split_at(half));
    let (into_a, into_b) = into.split_at_mut(half);
    let [sin_a, sin_b] = sins;
    let turned = |x: f32, cos: f32, other: f32, sin: f32| x * cos + other * sin;
    let ((part_a, _), (part_b, _)) = (x_a.as_chunks::<4>(), x_b.as_chunks::<4>());
    let ((cosines_a, _), (cosines_b, _)) = (cos_a.as_chunks::<4>(), cos_b.as_chunks::<4>());
    let ((sines_a, _), (sines_b, _)) = (sin_a.as_chunks::<4>(), sin_b.as_chunks::<4>());
    let ((to_a, _), (to_b, _)) = (into_a.as_chunks_mut::<4>(), into_b.as_chunks_mut::<4>());
    for n in 0..half / 4 {
        let (a, b) = (part_a[n], part_b[n]);
        for m in 0..4 {
            to_a[n][m] = turned(a[m], cosines_a[n][m], b[m], sines_a[n][m]);
            to_b[n][m] = turned(b[m], cosines_b[n][m], a[m], sines_b[n][m]);
        }
    }
    for n in half / 4 * 4..half {
        into_a[n] = turned(x_a[n], cos_a[n], x_b[n], sin_a[n]);
        into_b[n] = turned(x_b[n], cos_b[n], x_a[n], sin_b[n]);
    }
}

fn angles<'a>(task: &View<'a>, position: usize) -> (&'a [f32], &'a [f32]) {
    let at = position * task.width..(position + 1) * task.width;
    (&task.cos[at.clone()], &task.sin[at])
}
