//! One row of logits, chunk by chunk and block by block: maxima, and the tokens above a limit. Sums nothing.

use super::lanes::vectorised;

/// Tokens that are summed in f32; chunks are added in f64.
pub(crate) const CHUNK: usize = 1024;

/// Tokens that share an entry of [`Row::maxima`].
pub(crate) const BLOCK: usize = 32;

/// The logits of one position: a whole vocabulary, all of it but one token, or those of a kept set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    pub(crate) values: &'a [f32],
    /// The place of the mask, where it has no probability.
    pub(crate) excluded: Option<usize>,
}

impl<'a> Row<'a> {
    /// The values of a chunk; -inf in place of the excluded one and, up to whole blocks, after the last one.
    pub(crate) fn chunk<'c>(&self, chunk: usize, copy: &'c mut [f32; CHUNK]) -> &'c [f32]
    where
        'a: 'c,
    {
        let start = chunk * CHUNK;
        let rest = &self.values[start..];
        let excluded = self.excluded.and_then(|place| place.checked_sub(start));
        let excluded = excluded.filter(|&place| place < CHUNK.min(rest.len()));
        let len = rest.len().min(CHUNK);
        if len == CHUNK && excluded.is_none() {
            return &rest[..CHUNK];
        }
        let copy = &mut copy[..len.next_multiple_of(BLOCK)];
        copy[..len].copy_from_slice(&rest[..len]);
        copy[len..].fill(f32::NEG_INFINITY);
        if let Some(place) = excluded {
            copy[place] = f32::NEG_INFINITY;
        }
        copy
    }

    pub(crate) fn chunks(&self) -> usize {
        self.values.len().div_ceil(CHUNK)
    }

    /// The maximum of each [`BLOCK`] tokens in their order, NaN where one of them is.
    pub(crate) fn maxima(&self) -> Vec<f32> {
        let mut copy = [0.0; CHUNK];
        let mut maxima = vec![f32::NEG_INFINITY; self.values.len().div_ceil(BLOCK)];
        for (chunk, maxima) in maxima.chunks_mut(CHUNK / BLOCK).enumerate() {
            vectorised!(block_maxima(self.chunk(chunk, &mut copy), maxima));
        }
        maxima
    }

    /// The places whose values are in a set, ascending. Blocks whose maximum does not reach the set are passed over.
    pub(crate) fn collect(
        &self,
        maxima: &[f32],
        reaches: impl Fn(f32) -> bool,
        is_in: impl Fn(f32) -> bool + Copy,
    ) -> Vec<usize> {
        let mut places = vec![];
        let mut copy = [0.0; CHUNK];
        for chunk in 0..self.chunks() {
            let first = chunk * (CHUNK / BLOCK);
            let values = self.chunk(chunk, &mut copy);
            for (n, block) in values.as_chunks::<BLOCK>().0.iter().enumerate() {
                if reaches(maxima[first + n]) {
                    add_places(
                        vectorised!(members(block, is_in)),
                        (first + n) * BLOCK,
                        &mut places,
                    );
                }
            }
        }
        places
    }
}

/// Adds the places of the bits that are set, counted from `first`.
fn add_places(bits: u32, first: usize, places: &mut Vec<usize>) {
    if bits.count_ones() < 8 {
        let mut rest = bits;
        while rest != 0 {
            places.push(first + rest.trailing_zeros() as usize);
            rest &= rest - 1;
        }
        return;
    }
    // Without a branch for each bit.
    let (mut found, mut count) = ([0; BLOCK], 0);
    for n in 0..BLOCK {
        found[count % BLOCK] = first + n;
        count += (bits >> n & 1) as usize;
    }
    places.extend_from_slice(&found[..count]);
}

/// The larger of two numbers, NaN if one of them is.
pub(crate) fn larger(a: f32, b: f32) -> f32 {
    if b > a || b.is_nan() { b } else { a }
}

/// NaN if one of them is.
pub(crate) fn largest(values: &[f32]) -> f32 {
    values.iter().copied().fold(f32::NEG_INFINITY, larger)
}

#[target_feature(enable = "avx2,fma")]
fn block_maxima(values: &[f32], maxima: &mut [f32]) {
    for (max, block) in maxima.iter_mut().zip(values.as_chunks::<BLOCK>().0) {
        let mut lanes = [0.0; 8];
        for n in 0..8 {
            let (a, b) = (larger(block[n], block[n + 8]), larger(block[n + 16], block[n + 24]));
            lanes[n] = larger(a, b);
        }
        *max = largest(&lanes);
    }
}

/// One bit a value, the lowest for the first.
#[target_feature(enable = "avx2,fma")]
fn members(block: &[f32; BLOCK], is_in: impl Fn(f32) -> bool) -> u32 {
    let mut bits = 0;
    for (n, &value) in block.iter().enumerate() {
        bits |= u32::from(is_in(value)) << n;
    }
    bits
}
