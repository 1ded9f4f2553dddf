//! The mass of a row of logits by distance from its maximum: where a share of the mass ends, without an order of all
//! tokens.

use super::lanes::vectorised;
use super::row::{CHUNK, Row};
use super::softmax::Weights;

const BUCKETS: usize = 512;

/// Ranges of logits by their distance from the largest, each a factor of exp(1/16) in probability; the last one is
/// open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Buckets {
    max: f32,
    scale: f32,
}

impl Buckets {
    #[expect(clippy::cast_possible_truncation, reason = "the ends of ranges need no precision")]
    pub(crate) fn new(max: f32, temperature: f64) -> Self {
        // Bounded, so that the bucket of the largest logit is the first.
        let scale = ((16.0 / temperature) as f32).clamp(f32::MIN_POSITIVE, f32::MAX);
        Self { max, scale }
    }

    /// The bucket of a logit; never falls as the logit falls.
    #[inline]
    pub(crate) fn of(self, logit: f32) -> u32 {
        /// 2^23: of a sum with it, the last bits are the whole number.
        const WHOLE: f32 = 8_388_608.0;
        const LAST: f32 = (BUCKETS - 1) as f32;
        let place = (self.max - logit) * self.scale;
        let place = if place < LAST { place } else { LAST };
        (place + WHOLE).to_bits() - WHOLE.to_bits()
    }

    /// The sum of the weights in each bucket.
    pub(crate) fn masses(self, row: &Row<'_>, weights: Weights) -> [f64; BUCKETS] {
        // Neighbours add to different tables, so that an addition need not wait for the one before.
        let mut tables = [[0.0; BUCKETS]; 4];
        let (mut copy, mut masses, mut places) = ([0.0; CHUNK], [0.0; CHUNK], [0; CHUNK]);
        for chunk in 0..row.chunks() {
            let values = row.chunk(chunk, &mut copy);
            let (places, masses) = (&mut places[..values.len()], &mut masses[..values.len()]);
            weights.fill(masses, values);
            vectorised!(fill(places, values, self));
            let groups = places.as_chunks::<4>().0.iter().zip(masses.as_chunks::<4>().0);
            for (places, masses) in groups {
                for n in 0..4 {
                    tables[n][places[n] as usize % BUCKETS] += f64::from(masses[n]);
                }
            }
        }
        std::array::from_fn(|n| tables.iter().map(|table| table[n]).sum())
    }
}

#[target_feature(enable = "avx2,fma")]
fn fill(places: &mut [u32], values: &[f32], buckets: Buckets) {
    for (place, value) in places.iter_mut().zip(values) {
        *place = buckets.of(*value);
    }
}
