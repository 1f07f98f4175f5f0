//! The two inner loops: weighted sums along a row, and of rows.
//!
//! A weight has up to 24 bits and a sample 8, but the multiplication that every x86-64 does fast
//! (`pmaddwd`) takes 16-bit factors and adds neighboring products. So a weight is cut into an
//! upper part and 15 lower bits, both parts are summed on their own, and the sums are put
//! together at the end. That is exact: all of it is integer arithmetic modulo 2^32, and the
//! result is known to fit. `wide` makes the instructions safe to use, and plain code elsewhere.

use wide::{i16x8, i32x4, u8x16};

use super::weights::{FRACTION_BITS, Weights};

/// Half a unit in fixed point, so that the final shift rounds.
const HALF: i32 = 1 << (FRACTION_BITS - 1);

/// Bits of the lower part of a weight, which must not be negative as an `i16`.
const LOWER_BITS: u32 = 15;

#[inline(always)]
fn to_byte(sum: i32) -> u8 {
    (sum >> FRACTION_BITS).clamp(0, 255) as u8
}

/// Upper and lower part of a weight.
#[inline(always)]
fn split(weight: i32) -> (i16, i16) {
    ((weight >> LOWER_BITS) as i16, (weight & ((1 << LOWER_BITS) - 1)) as i16)
}

#[inline(always)]
fn join(upper: i32x4, lower: i32x4) -> [i32; 4] {
    ((upper << LOWER_BITS) + lower).to_array()
}

#[inline(always)]
fn load(samples: &[u8]) -> u8x16 {
    u8x16::from(<[u8; 16]>::try_from(&samples[..16]).expect("sliced to sixteen"))
}

/// Samples of a row that are handled at once: eight pixels.
const BLOCK: usize = 24;
/// A product is added to the one of the sample half a block further on, which has the same
/// channel because half a block is a multiple of three.
const HALF_BLOCK: usize = BLOCK / 2;

/// Weights of one block: three vectors of four pairs each.
#[derive(Clone, Copy)]
struct BlockWeights {
    upper: [i16x8; 3],
    lower: [i16x8; 3],
}

impl BlockWeights {
    /// From one weight per sample.
    fn new(weights: &[i32; BLOCK]) -> Self {
        let pairs = |part: fn((i16, i16)) -> i16| {
            std::array::from_fn(|vector| {
                i16x8::from(std::array::from_fn(|i| {
                    let sample = 4 * vector + i / 2 + HALF_BLOCK * (i % 2);
                    part(split(weights[sample]))
                }))
            })
        };
        Self { upper: pairs(|split| split.0), lower: pairs(|split| split.1) }
    }
}

/// Weights for the pass along rows.
pub(super) struct Columns {
    /// Where the blocks of each output start in a row, in samples.
    starts: Vec<usize>,
    weights: Vec<BlockWeights>,
    blocks: usize,
    padding: usize,
}

impl Columns {
    /// For rows whose first pixel is number `origin` of the source.
    pub(super) fn new(weights: &Weights, origin: usize) -> Self {
        let blocks = (3 * weights.longest()).div_ceil(BLOCK);
        let mut starts = Vec::with_capacity(weights.len());
        let mut all = Vec::with_capacity(weights.len() * blocks);
        for i in 0..weights.len() {
            let (first, weights) = weights.of(i);
            starts.push(3 * (first - origin));
            all.extend((0..blocks).map(|block| {
                let of_sample = |sample| weights.get((block * BLOCK + sample) / 3).copied().unwrap_or(0);
                BlockWeights::new(&std::array::from_fn(of_sample))
            }));
        }
        // The last load of a block starts at its middle and takes sixteen samples.
        let padding = blocks * BLOCK + 16 - HALF_BLOCK;
        Self { starts, weights: all, blocks, padding }
    }

    /// Samples, of any value, that a row must have after its last one.
    pub(super) fn padding(&self) -> usize {
        self.padding
    }

    /// Computes outputs from the `first`-th on, as many as `target` has room for.
    pub(super) fn blend(&self, row: &[u8], first: usize, target: &mut [u8]) {
        let weights = self.weights[first * self.blocks..].chunks_exact(self.blocks);
        for ((pixel, &start), weights) in target.chunks_exact_mut(3).zip(&self.starts[first..]).zip(weights) {
            let samples = &row[start..start + self.padding];
            let mut upper = [i32x4::ZERO; 3];
            let mut lower = [i32x4::ZERO; 3];
            for (block, weights) in weights.iter().enumerate() {
                let samples = &samples[block * BLOCK..];
                let (left, right) = (load(samples), load(&samples[HALF_BLOCK..]));
                let (near, far) = (u8x16::unpack_low(left, right), u8x16::unpack_high(left, right));
                let pairs =
                    [i16x8::from_u8x16_low(near), i16x8::from_u8x16_high(near), i16x8::from_u8x16_low(far)];
                for vector in 0..3 {
                    upper[vector] += pairs[vector].dot(weights.upper[vector]);
                    lower[vector] += pairs[vector].dot(weights.lower[vector]);
                }
            }
            let [a, b, c] = [0, 1, 2].map(|vector| join(upper[vector], lower[vector]));
            // Lanes of the twelve sums belong to red, green, blue, red, and so on.
            let red = a[0].wrapping_add(a[3]).wrapping_add(b[2]).wrapping_add(c[1]);
            let green = a[1].wrapping_add(b[0]).wrapping_add(b[3]).wrapping_add(c[2]);
            let blue = a[2].wrapping_add(b[1]).wrapping_add(c[0]).wrapping_add(c[3]);
            pixel.copy_from_slice(&[red, green, blue].map(|sum| to_byte(sum.wrapping_add(HALF))));
        }
    }
}

/// Weights for the pass down columns, of one output row.
struct RowWeights {
    /// Two neighboring source rows: upper parts of their weights four times, and lower parts.
    pairs: Vec<(i16x8, i16x8)>,
}

impl RowWeights {
    fn new(weights: &[i32]) -> Self {
        let pairs = weights.chunks(2).map(|pair| {
            let (first, second) = (split(pair[0]), split(pair.get(1).copied().unwrap_or(0)));
            let repeat = |a, b| i16x8::from([a, b, a, b, a, b, a, b]);
            (repeat(first.0, second.0), repeat(first.1, second.1))
        });
        Self { pairs: pairs.collect() }
    }
}

/// Sums rows that lie `stride` samples apart, the first of them at the start of `rows`.
pub(super) fn blend_rows(rows: &[u8], stride: usize, weights: &[i32], target: &mut [u8]) {
    const LANES: usize = 16;
    let split_weights = RowWeights::new(weights);
    let mut chunks = target.chunks_exact_mut(LANES);
    let mut offset = 0;
    for chunk in &mut chunks {
        let mut upper = [i32x4::ZERO; 4];
        let mut lower = [i32x4::ZERO; 4];
        for (pair, (upper_weights, lower_weights)) in split_weights.pairs.iter().enumerate() {
            let at = 2 * pair * stride + offset;
            let first = load(&rows[at..]);
            // An odd number of rows ends with a pair of one row, whose partner weighs nothing.
            let second = if 2 * pair + 1 < weights.len() { load(&rows[at + stride..]) } else { first };
            let (near, far) = (u8x16::unpack_low(first, second), u8x16::unpack_high(first, second));
            let pairs = [
                i16x8::from_u8x16_low(near),
                i16x8::from_u8x16_high(near),
                i16x8::from_u8x16_low(far),
                i16x8::from_u8x16_high(far),
            ];
            for vector in 0..4 {
                upper[vector] += pairs[vector].dot(*upper_weights);
                lower[vector] += pairs[vector].dot(*lower_weights);
            }
        }
        for (vector, samples) in chunk.chunks_exact_mut(4).enumerate() {
            let sums = join(upper[vector], lower[vector]);
            samples.copy_from_slice(&sums.map(|sum| to_byte(sum.wrapping_add(HALF))));
        }
        offset += LANES;
    }
    for (i, sample) in chunks.into_remainder().iter_mut().enumerate() {
        let column = rows[offset + i..].iter().step_by(stride);
        let sum: i32 = column.zip(weights).map(|(&sample, &weight)| i32::from(sample) * weight).sum();
        *sample = to_byte(HALF + sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::resample::Filter;

    /// Sums one sample after the other.
    fn naive(samples: impl Iterator<Item = u8>, weights: &[i32]) -> u8 {
        let sum: i64 = samples.zip(weights).map(|(s, &w)| i64::from(s) * i64::from(w)).sum();
        ((sum + i64::from(HALF)) >> FRACTION_BITS).clamp(0, 255) as u8
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut state = 1_u32;
        (0..len)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                // Extremes are where a carry would get lost.
                [0, 255, (state >> 24) as u8][(state >> 20) as usize % 3]
            })
            .collect()
    }

    #[test]
    fn both_passes_equal_the_naive_sums() {
        for (from, to) in [(1, 9), (2, 7), (9, 2), (40, 13), (333, 10), (70_000, 3), (5_000, 4_999)] {
            for filter in [Filter::Box, Filter::Bilinear, Filter::Bicubic, Filter::Lanczos] {
                let count = to.min(20);
                let weights = Weights::new(filter, from, to, 0, count);
                let columns = Columns::new(&weights, 0);
                let mut row = noise(3 * from as usize);
                let samples = row.clone();
                row.resize(row.len() + columns.padding(), 77);
                let mut out = vec![0; 3 * count as usize];
                columns.blend(&row, 0, &mut out);
                for (i, &sample) in out.iter().enumerate() {
                    let (first, weights) = weights.of(i / 3);
                    let column = samples[3 * first + i % 3..].iter().step_by(3);
                    assert_eq!(sample, naive(column.copied(), weights), "{filter:?} {from} {to} {i}");
                }
                // The same samples as rows of 19, which leaves a remainder of three.
                let stride = 19;
                let rows = noise(stride * from as usize);
                let mut out = vec![0; stride];
                for i in 0..count as usize {
                    let (first, weights) = weights.of(i);
                    blend_rows(&rows[first * stride..], stride, weights, &mut out);
                    for (x, &sample) in out.iter().enumerate() {
                        let column = rows[first * stride + x..].iter().step_by(stride);
                        assert_eq!(sample, naive(column.copied(), weights), "{filter:?} {from} {to} {i} {x}");
                    }
                }
            }
        }
    }
}
