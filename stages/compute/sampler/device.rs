//! Distributions of logits that lie on a device: what a choice needs of them is computed there, and comes to the host in
//! one read, or two where nothing is filtered. The host draws, by the code that it uses for logits of its own.
//!
//! | sampler | on the device | to the host, for a position |
//! | --- | --- | --- |
//! | top-k | the largest logits, by `topk` | about 1.5 k logits and ids |
//! | no filter | log-probabilities, and sums over chunks | V / 1024 sums, then a chunk for each draw |
//! | ranked by the model | the normaliser of all logits | one number more; without a filter, the chunks of logits too |
//! | greedy | log-probabilities, and the best token | three numbers |
//! | in order of margin, unless filtered | the two largest log-probabilities, by `topk` | one number more |
//! | top-p alone | the largest logits, and the mass of the others | 1024 logits and ids, if need be 8192, or else V logits |
//!
//! Log-probabilities are those of the learner: of kept sets by the kernel on the host, of all tokens by libtorch
//! (`kernels/rows.rs`). Every operation is deterministic on a GPU, and where logits are equal ids decide, so nothing
//! follows from the order in which an operation meets them. The mass beside the largest logits is rounded otherwise than on
//! the host, so it decides only where any such rounding would decide alike.

use std::collections::{BTreeMap, BTreeSet};

use agrpo_spec::{PositionRule, Sampler};
use tch::{Kind, Tensor};

use super::choice::{Distribution, Part, chunk_of, is_greedy, no_numbers, ranks_by_model};
use super::kept::{is_filtered, top_p_of_largest};
use crate::error::Result;
use crate::kernels::row::{CHUNK, Row};
use crate::kernels::rows::Rows;
use crate::kernels::softmax::Weights;
use crate::tensors::{length, numbers, upload};

/// Positions whose weights are computed at once.
const AT_ONCE: usize = 64;

/// How many of the largest logits come to the host for top-p alone; a row that they do not decide is taken as a whole.
const WIDTHS: [usize; 2] = [1024, 8192];

/// The distributions of N positions from their logits, N x V, on any device and of any floating kind. `uniforms` are the
/// numbers by which tokens of each position may be drawn; no others may be. Invalid error where a logit is no number.
pub(super) fn distributions(
    logits_NV: Tensor,
    sampler: &Sampler,
    mask: usize,
    uniforms: &[Vec<f64>],
) -> Result<Vec<Distribution<'static>>> {
    let mask = length(mask);
    if is_greedy(sampler) {
        return greedy(&logits_NV, sampler, mask);
    }
    let normalisers = normalisers(&logits_NV, sampler)?;
    if sampler.top_k > 0 {
        top_k(logits_NV, sampler, mask, &normalisers)
    } else if is_filtered(sampler) {
        top_p(logits_NV, sampler, mask, &normalisers)
    } else {
        unfiltered(&logits_NV, (sampler, mask), uniforms, &normalisers)
    }
}

/// For each row the normaliser of the model's own distribution, if positions are ranked by it.
fn normalisers(logits_NV: &Tensor, sampler: &Sampler) -> Result<Vec<Option<f64>>> {
    if !ranks_by_model(sampler) {
        return Ok(vec![None; place(logits_NV.size()[0])]);
    }
    let of = |logits_nV: &Tensor| {
        let logits_nV = logits_nV.to_kind(Kind::Float);
        let max_n1 = logits_nV.amax(-1, true).to_kind(Kind::Double);
        let sums_nC = Rows::new(&logits_nV, 1.0, None).sums().shallow_clone();
        max_n1 + sums_nC.sum_dim_intlist(-1, true, Kind::Double).log()
    };
    let all: Vec<f64> = read(&parts(logits_NV).iter().map(of).collect::<Vec<_>>())?;
    let finite = |normaliser: f64| normaliser.is_finite().then_some(normaliser);
    all.into_iter().map(|of| finite(of).map(Some).ok_or_else(no_numbers)).collect()
}

fn top_p(
    logits_NV: Tensor,
    sampler: &Sampler,
    mask: i64,
    normalisers: &[Option<f64>],
) -> Result<Vec<Distribution<'static>>> {
    let logits_NV = without(logits_NV, mask);
    let v = place(logits_NV.size()[1]);
    let mut all = BTreeMap::new();
    let mut open: Vec<i64> = (0..logits_NV.size()[0]).collect();
    for width in WIDTHS {
        let found = top_p_within(&logits_NV, &open, width, (sampler, normalisers))?;
        let decided = open.iter().zip(found).filter_map(|(&row, found)| Some((row, found?)));
        all.extend(decided);
        open.retain(|row| !all.contains_key(row));
        if width >= v {
            // All logits were there already.
            break;
        }
    }
    for rows in open.chunks(AT_ONCE) {
        let values: Vec<f32> = numbers(&rows_of(&logits_NV, rows))?;
        for (&row, values) in rows.iter().zip(values.chunks(v)) {
            let row_of_host = Row { values, excluded: None };
            let normaliser = normalisers[place(row)];
            all.insert(row, Distribution::of_kept(&row_of_host, |id| id, sampler, normaliser)?);
        }
    }
    Ok(all.into_values().collect())
}

/// The distributions of some rows by top-p, from their largest logits; none where these do not decide it.
fn top_p_within(
    logits_NV: &Tensor,
    rows: &[i64],
    width: usize,
    (sampler, normalisers): (&Sampler, &[Option<f64>]),
) -> Result<Vec<Option<Distribution<'static>>>> {
    let v = place(logits_NV.size()[1]);
    let width = width.min(v);
    let factor = f64::from(Weights::new(0.0, sampler.temperature.get()).factor());
    let bits = |t: &Tensor| t.to_kind(Kind::Float).contiguous().view_dtype(Kind::Int);
    let mut found = vec![];
    for rows in rows.chunks(AT_ONCE) {
        let logits_nV = rows_of(logits_NV, rows).to_kind(Kind::Float);
        let (values_nW, ids_nW) = logits_nV.topk(length(width), 1, true, true);
        let max_n1 = values_nW.narrow(1, 0, 1);
        let mass = |logits: &Tensor| {
            ((logits - &max_n1) * factor).exp().sum_dim_intlist(-1, true, Kind::Double)
        };
        let outside_n1 = mass(&logits_nV) - mass(&values_nW);
        found.push(Tensor::cat(
            &[bits(&outside_n1), bits(&values_nW), ids_nW.to_kind(Kind::Int)],
            1,
        ));
    }
    if found.is_empty() {
        return Ok(vec![]);
    }
    let read: Vec<i32> = read(&found)?;
    let number = |bits: i32| f32::from_bits(bits.cast_unsigned());
    let of = |(row, number_of_row): (&[i32], &i64)| {
        let (values, ids) = row[1..].split_at(width);
        let ids = ids.iter().map(|&id| place(id.into()));
        let best = values.iter().map(|&bits| number(bits)).zip(ids).collect();
        let normaliser = normalisers[place(*number_of_row)];
        of_best(best, f64::from(number(row[0])), width == v, (sampler, normaliser))
    };
    read.chunks(1 + 2 * width).zip(rows).map(of).collect()
}

/// The distribution of a row from its largest logits with their ids, in any order, and the mass of the others.
fn of_best(
    mut best: Vec<(f32, usize)>,
    outside: f64,
    is_whole: bool,
    (sampler, normaliser): (&Sampler, Option<f64>),
) -> Result<Option<Distribution<'static>>> {
    // A NaN is the largest.
    best.sort_unstable_by(|(a, id), (b, other)| b.total_cmp(a).then(id.cmp(other)));
    let (logits, _): (Vec<f32>, Vec<usize>) = best.iter().copied().unzip();
    if logits.iter().any(|logit| logit.is_nan()) || !logits[0].is_finite() {
        return Err(no_numbers());
    }
    let count = top_p_of_largest(&logits, outside, sampler);
    // Of those that are as good as the last one, others with lower ids may be outside.
    let is_known = |count: &usize| is_whole || logits[*count] > logits[logits.len() - 1];
    let Some(count) = count.filter(is_known) else { return Ok(None) };
    best.truncate(count);
    best.sort_unstable_by_key(|(_, id)| *id);
    let (values, ids) = best.into_iter().unzip();
    Distribution::of_set(values, ids, sampler, normaliser).map(Some)
}

fn top_k(
    logits_NV: Tensor,
    sampler: &Sampler,
    mask: i64,
    normalisers: &[Option<f64>],
) -> Result<Vec<Distribution<'static>>> {
    let k = place(i64::from(sampler.top_k).min(logits_NV.size()[1]));
    // The mask is never written.
    let logits_NV = without(logits_NV, mask);
    let mut width = k + k / 2 + 16;
    loop {
        width = width.min(place(logits_NV.size()[1]));
        let (values, ids) = largest(&logits_NV, width)?;
        let rows = || values.chunks(width).zip(ids.chunks(width));
        // Where the last one is as large as the k-th, others outside may be as well.
        let is_whole = |row: &[f32]| {
            width == place(logits_NV.size()[1])
                || row[width - 1] < row[k - 1]
                || row[k - 1] == f32::NEG_INFINITY
                || row[0].is_nan()
        };
        if rows().all(|(row, _)| is_whole(row)) {
            let of = |((row, ids), normaliser): ((&[f32], &[i32]), &Option<f64>)| {
                of_largest(row, ids, k, (sampler, *normaliser))
            };
            return rows().zip(normalisers).map(of).collect();
        }
        width *= 4;
    }
}

/// The distribution of one row from its largest logits, descending, and their ids in any order among equals.
fn of_largest(
    row: &[f32],
    ids: &[i32],
    k: usize,
    (sampler, normaliser): (&Sampler, Option<f64>),
) -> Result<Distribution<'static>> {
    // A NaN comes first, and is refused.
    let is_in = |value: f32| value.is_nan() || value >= row[k - 1].max(f32::MIN);
    let mut all: Vec<(usize, f32)> = ids
        .iter()
        .zip(row)
        .filter(|&(_, &value)| is_in(value))
        .map(|(&id, &value)| (place(id.into()), value))
        .collect();
    all.sort_unstable_by_key(|(id, _)| *id);
    let (ids, logits): (Vec<_>, Vec<_>) = all.into_iter().unzip();
    let row = Row { values: &logits, excluded: None };
    Distribution::of_kept(&row, |place| ids[place], sampler, normaliser)
}

/// The largest logits of each row, and their ids, in one read.
fn largest(logits_NV: &Tensor, width: usize) -> Result<(Vec<f32>, Vec<i32>)> {
    let (values_NW, ids_NW) = logits_NV.topk(length(width), 1, true, true);
    let bits_NW = values_NW.to_kind(Kind::Float).contiguous().view_dtype(Kind::Int);
    let both = Tensor::stack(&[bits_NW, ids_NW.to_kind(Kind::Int)], 0);
    let both: Vec<i32> = numbers(&both)?;
    let (bits, ids) = both.split_at(both.len() / 2);
    let values = bits.iter().map(|&bits| f32::from_bits(bits.cast_unsigned())).collect();
    Ok((values, ids.to_vec()))
}

fn greedy(logits_NV: &Tensor, sampler: &Sampler, mask: i64) -> Result<Vec<Distribution<'static>>> {
    let mut found = vec![];
    for logits_nV in parts(logits_NV) {
        let logits_nV = logits_nV.to_kind(Kind::Float);
        // The mask is not chosen, and has its part in the distribution.
        let rows = Rows::new(&logits_nV, 1.0, None);
        // Of equals the first one.
        let best_n1 = without(logits_nV.copy(), mask).argmax(1, true);
        let logp_nV = rows.log_probabilities();
        let logp_n1 = logp_nV.gather(1, &best_n1, false);
        let columns = [best_n1, logp_n1, rows.entropies(), margins(&logp_nV, sampler)];
        let columns = columns.map(|t| t.to_kind(Kind::Double));
        found.push(Tensor::cat(&columns, 1));
    }
    let rows: Vec<f64> = read(&found)?;
    let of = |&[token, logp, entropy, margin]: &[f64; 4]| {
        if logp.is_nan() {
            return Err(no_numbers());
        }
        #[expect(clippy::cast_possible_truncation, reason = "it was an i64 and an f32")]
        let (token, logp) = (place(token as i64), logp as f32);
        Ok(Distribution::Device(Part::Best { token, logp, entropy, margin }))
    };
    rows.as_chunks().0.iter().map(of).collect()
}

/// For each row the probability of the most probable token minus that of the second, N x 1; 0 where positions are not
/// ranked by it.
fn margins(logp_NV: &Tensor, sampler: &Sampler) -> Tensor {
    if sampler.position != PositionRule::Margin {
        return Tensor::zeros([logp_NV.size()[0], 1], (Kind::Double, logp_NV.device()));
    }
    let (logp_N2, _) = logp_NV.topk(2, 1, true, true);
    let p_N2 = logp_N2.to_kind(Kind::Double).exp();
    p_N2.narrow(1, 0, 1) - p_N2.narrow(1, 1, 1)
}

fn unfiltered(
    logits_NV: &Tensor,
    (sampler, mask): (&Sampler, i64),
    uniforms: &[Vec<f64>],
    normalisers: &[Option<f64>],
) -> Result<Vec<Distribution<'static>>> {
    let v = logits_NV.size()[1];
    let masked_1V = Tensor::arange(v, (Kind::Int64, logits_NV.device())).eq(mask).unsqueeze(0);
    let is_ranked = normalisers.iter().any(Option::is_some);
    let (mut all_logps, mut all_logits, mut found) = (vec![], vec![], vec![]);
    for logits_nV in parts(logits_NV) {
        let logits_nV = logits_nV.to_kind(Kind::Float);
        let rows = Rows::new(&logits_nV, sampler.temperature.get(), Some(&masked_1V));
        let logp_nV = rows.log_probabilities();
        found.push(Tensor::cat(&[&margins(&logp_nV, sampler), &rows.entropies(), rows.sums()], 1));
        all_logps.push(logp_nV);
        if is_ranked {
            all_logits.push(logits_nV);
        }
    }
    let chunks = place(v).div_ceil(CHUNK);
    let read: Vec<f64> = read(&found)?;
    let rows: Vec<(&[f64; 2], &[f64])> =
        read.chunks(2 + chunks).filter_map(<[f64]>::split_first_chunk).collect();
    if rows.iter().any(|(_, sums)| sums.iter().any(|sum| sum.is_nan())) {
        return Err(no_numbers());
    }
    let of_row = |(row, uniforms): (usize, &Vec<f64>)| {
        let chunk = |&uniform: &f64| (row, chunk_of(rows[row].1, uniform).0);
        uniforms.iter().map(chunk).collect::<Vec<_>>()
    };
    let asked: BTreeSet<(usize, usize)> = uniforms.iter().enumerate().flat_map(of_row).collect();
    let mut logps = chunks_of(&all_logps, &asked)?;
    let mut logits = chunks_of(&all_logits, &asked)?;
    let of = |(n, &(&[margin, entropy], sums)): (usize, &(&[f64; 2], &[f64]))| {
        let logps = logps.remove(&n).unwrap_or_default();
        let own = normalisers[n].map(|of| confidences(logits.remove(&n).unwrap_or_default(), of));
        Distribution::Device(Part::Chunks { sums: sums.to_vec(), logps, entropy, margin, own })
    };
    Ok(rows.iter().enumerate().map(of).collect())
}

/// Chunks of logits as the model's own log-probabilities.
#[expect(clippy::cast_possible_truncation, reason = "as other log-probabilities")]
fn confidences(
    mut chunks: BTreeMap<usize, Vec<f32>>,
    normaliser: f64,
) -> BTreeMap<usize, Vec<f32>> {
    let all = chunks.values_mut().flatten();
    all.for_each(|logit| *logit = (f64::from(*logit) - normaliser) as f32);
    chunks
}

/// The numbers in some chunks of some rows, by row and chunk, in one read.
fn chunks_of(
    all_logps: &[Tensor],
    asked: &BTreeSet<(usize, usize)>,
) -> Result<BTreeMap<usize, BTreeMap<usize, Vec<f32>>>> {
    let mut found = vec![];
    for (n, logps_nV) in all_logps.iter().enumerate() {
        let (device, v) = (logps_nV.device(), logps_nV.size()[1]);
        let own = asked.range((n * AT_ONCE, 0)..((n + 1) * AT_ONCE, 0));
        let first = |&(row, chunk)| length(row % AT_ONCE) * v + length(chunk * CHUNK);
        let firsts: Vec<i64> = own.map(first).collect();
        if firsts.is_empty() {
            continue;
        }
        let firsts_A1 = upload(&Tensor::from_slice(&firsts), device).unsqueeze(1);
        let index_AC = firsts_A1 + Tensor::arange(length(CHUNK), (Kind::Int64, device));
        // What lies past the end of a row is cut off below.
        let index_AC = index_AC.clamp_max(length(logps_nV.numel()) - 1);
        found.push(logps_nV.flatten(0, 1).index_select(0, &index_AC.flatten(0, 1)));
    }
    let mut all = BTreeMap::<usize, BTreeMap<usize, Vec<f32>>>::new();
    if !found.is_empty() {
        let v = place(all_logps[0].size()[1]);
        let read: Vec<f32> = read(&found)?;
        for (&(row, chunk), logps) in asked.iter().zip(read.chunks(CHUNK)) {
            let logps = logps[..CHUNK.min(v - chunk * CHUNK)].to_vec();
            all.entry(row).or_default().insert(chunk, logps);
        }
    }
    Ok(all)
}

/// Rows after rows, each [`AT_ONCE`], on the same memory.
fn parts(logits_NV: &Tensor) -> Vec<Tensor> {
    logits_NV.split(length(AT_ONCE), 0)
}

/// Some rows, copied.
fn rows_of(logits_NV: &Tensor, rows: &[i64]) -> Tensor {
    logits_NV.index_select(0, &upload(&Tensor::from_slice(rows), logits_NV.device()))
}

/// The logits with the mask's column at -inf, in place.
fn without(logits_NV: Tensor, mask: i64) -> Tensor {
    drop(logits_NV.narrow(1, mask, 1).fill_(f64::NEG_INFINITY));
    logits_NV
}

/// All rows of several tensors of one width, one after another.
fn read<T: tch::kind::Element>(parts: &[Tensor]) -> Result<Vec<T>> {
    numbers(&Tensor::cat(parts, 0))
}

fn place(id: i64) -> usize {
    usize::try_from(id).expect("ids and sizes are not negative")
}

#[cfg(test)]
mod tests;
