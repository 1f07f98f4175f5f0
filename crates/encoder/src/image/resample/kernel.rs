//! The two inner loops: weighted sums along a row, and of rows.
//!
//! Both are written so that the compiler turns them into vector code on any target. Sums are
//! exact: bytes times fixed-point weights in 32-bit integers, so no order of addition matters.

use super::weights::{FRACTION_BITS, Weights};

/// Half a unit in fixed point, so that the final shift rounds.
const HALF: i32 = 1 << (FRACTION_BITS - 1);

#[inline(always)]
fn to_byte(sum: i32) -> u8 {
    (sum >> FRACTION_BITS).clamp(0, 255) as u8
}

/// Samples handled at once along a row: a multiple of three, so that a lane stays with its
/// channel, and of eight, so that lanes fill registers.
const LANES: usize = 24;

/// Weights for the row pass, repeated for the three channels and padded to whole blocks.
pub(super) struct Columns {
    /// Where the blocks of each output start in a row, in samples.
    starts: Vec<usize>,
    weights: Vec<[i32; LANES]>,
    blocks: usize,
    /// Samples that a row must have for every block to be inside it.
    row_len: usize,
}

impl Columns {
    /// For rows that hold `width` source pixels, the first of them number `origin`.
    pub(super) fn new(weights: &Weights, origin: usize, width: usize) -> Self {
        let blocks = (3 * weights.longest()).div_ceil(LANES);
        let row_len = (3 * width).max(blocks * LANES);
        let mut starts = Vec::with_capacity(weights.len());
        let mut expanded = vec![[0; LANES]; weights.len() * blocks];
        for (i, expanded) in expanded.chunks_exact_mut(blocks).enumerate() {
            let (first, weights) = weights.of(i);
            let first = first - origin;
            // Blocks that would stick out on the right start earlier, with zeros in front.
            let start = (3 * first).min(row_len - blocks * LANES) / 3 * 3;
            let expanded = &mut expanded.as_flattened_mut()[3 * first - start..];
            for (triple, &weight) in expanded.chunks_exact_mut(3).zip(weights) {
                triple.fill(weight);
            }
            starts.push(start);
        }
        Self { starts, weights: expanded, blocks, row_len }
    }

    /// Computes outputs from the `first`-th on, as many as `target` has room for.
    pub(super) fn blend(&self, row: &[u8], first: usize, target: &mut [u8]) {
        if row.len() < self.row_len {
            let mut longer = vec![0; self.row_len];
            longer[..row.len()].copy_from_slice(row);
            self.blend_long(&longer, first, target);
        } else {
            self.blend_long(row, first, target);
        }
    }

    #[inline(always)]
    fn blend_long(&self, row: &[u8], first: usize, target: &mut [u8]) {
        let weights = self.weights[first * self.blocks..].chunks_exact(self.blocks);
        for ((pixel, &start), weights) in target.chunks_exact_mut(3).zip(&self.starts[first..]).zip(weights) {
            let samples = &row[start..start + self.blocks * LANES];
            let (samples, _) = samples.as_chunks::<LANES>();
            let mut sums = [0_i32; LANES];
            for (samples, weights) in samples.iter().zip(weights) {
                for lane in 0..LANES {
                    sums[lane] += i32::from(samples[lane]) * weights[lane];
                }
            }
            let mut rgb = [HALF; 3];
            for triple in sums.chunks_exact(3) {
                for channel in 0..3 {
                    rgb[channel] += triple[channel];
                }
            }
            pixel.copy_from_slice(&rgb.map(to_byte));
        }
    }
}

/// Sums rows that lie `stride` samples apart, the first of them at the start of `rows`.
pub(super) fn blend_rows(rows: &[u8], stride: usize, weights: &[i32], target: &mut [u8]) {
    const LANES: usize = 32;
    let mut chunks = target.chunks_exact_mut(LANES);
    let mut offset = 0;
    for chunk in &mut chunks {
        let mut sums = [HALF; LANES];
        for (t, &weight) in weights.iter().enumerate() {
            let samples = &rows[t * stride + offset..][..LANES];
            for lane in 0..LANES {
                sums[lane] += i32::from(samples[lane]) * weight;
            }
        }
        for lane in 0..LANES {
            chunk[lane] = to_byte(sums[lane]);
        }
        offset += LANES;
    }
    for (i, sample) in chunks.into_remainder().iter_mut().enumerate() {
        let column = rows[offset + i..].iter().step_by(stride);
        let sum: i32 = column.zip(weights).map(|(&sample, &weight)| i32::from(sample) * weight).sum();
        *sample = to_byte(HALF + sum);
    }
}
