//! FastScan: sums of ±query over 32 sign codes at once, through 16-entry tables.
//!
//! Four coded dimensions make a group; the 16 possible sums of ±query over a group are a table of bytes.
//! A block holds 32 codes, transposed: 16 bytes per group, byte `i` with row `i` in its low and row
//! `i + 16` in its high half. (The scheme of Quick ADC and its successors.)

use crate::arch::Kernels;

/// Codes of a block.
pub const BLOCK_ROWS: usize = 32;

/// Puts one row's bits into a block; `bits` has one bit per coded dimension for each plane, a multiple of 8, lowest first.
/// The planes of a block follow one another.
pub fn set_code(block: &mut [u8], row: usize, bits: &[u8]) {
    let (at, shift) = (row % 16, row / 16 * 4);
    for (pair, &byte) in block.chunks_exact_mut(32).zip(bits) {
        for (half, nibble) in [(0, byte & 15), (16, byte >> 4)] {
            let cell = &mut pair[half + at];
            *cell = *cell & !(15 << shift) | nibble << shift;
        }
    }
}

/// Takes one row's bits out of a block.
#[must_use]
pub fn get_code(block: &[u8], row: usize) -> Vec<u8> {
    let (at, shift) = (row % 16, row / 16 * 4);
    block.chunks_exact(32).map(|pair| pair[at] >> shift & 15 | (pair[16 + at] >> shift & 15) << 4).collect()
}

/// The tables of one vector.
#[derive(Clone, Debug)]
pub struct Table {
    bytes: Vec<u8>,
    step: f32,
    low: f32,
}

impl Table {
    /// A table for codes of `code_dim` dimensions, a multiple of 8, to be filled.
    #[must_use]
    pub fn new(code_dim: usize) -> Self {
        Self { bytes: vec![0; code_dim * 4], step: 0.0, low: 0.0 }
    }

    /// Computes the tables of a vector, `[code_dim]` or longer. About 1 us at 256 dimensions.
    pub fn fill(&mut self, vector: &[f32]) {
        let groups = || vector.chunks_exact(4);
        let count = self.bytes.len() / 16;
        let (mut widest, mut low) = (0.0f32, 0.0f32);
        for g in groups().take(count) {
            let reach = g[0].abs() + g[1].abs() + g[2].abs() + g[3].abs();
            widest = widest.max(reach);
            low -= reach;
        }
        self.low = low;
        self.step = if widest > 0.0 { 2.0 * widest / 255.0 } else { 1.0 };
        let inverse = 1.0 / self.step;
        for (entries, g) in self.bytes.chunks_exact_mut(16).zip(groups()) {
            let reach = g[0].abs() + g[1].abs() + g[2].abs() + g[3].abs();
            for (code, entry) in entries.iter_mut().enumerate() {
                let sign = |bit: usize| if code >> bit & 1 == 1 { g[bit] } else { -g[bit] };
                let sum = (sign(0) + sign(1)) + (sign(2) + sign(3)) + reach;
                #[allow(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "0 to 255 and a half"
                )]
                {
                    *entry = (sum * inverse + 0.5) as u8;
                }
            }
        }
    }

    /// For each of 32 codes, its inner product with the vector: the sum over the coded dimensions of ±vector, and half of
    /// such a sum for a second plane of bits.
    #[inline]
    #[must_use]
    pub fn sums(&self, kernels: Kernels, codes: &[u8]) -> [f32; BLOCK_ROWS] {
        let (signs, halves) = codes.split_at(self.bytes.len());
        let counts = kernels.fastscan(&self.bytes, signs);
        if halves.is_empty() {
            return std::array::from_fn(|i| self.low + self.step * f32::from(counts[i]));
        }
        let half_counts = kernels.fastscan(&self.bytes, halves);
        let (low, half_step) = (1.5 * self.low, 0.5 * self.step);
        std::array::from_fn(|i| {
            low + self.step * f32::from(counts[i]) + half_step * f32::from(half_counts[i])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;

    #[test]
    fn codes_round_trip_in_any_order() {
        let mut block = vec![0xFFu8; 32 * 128 / 8];
        let bits = |row: usize| -> Vec<u8> { (0..16).map(|i| ((row * 41 + i * 13) % 256) as u8).collect() };
        for row in (0..32).rev() {
            set_code(&mut block, row, &bits(row));
        }
        for row in 0..32 {
            assert_eq!(get_code(&block, row), bits(row));
        }
    }

    #[test]
    fn frozen_packing() {
        let mut block = vec![0u8; 32 * 64 / 8];
        set_code(&mut block, 3, &[0x21, 0, 0, 0, 0, 0, 0, 0x80]);
        set_code(&mut block, 19, &[0x43, 0, 0, 0, 0, 0, 0, 0]);
        // Group 0 is byte 3, group 1 byte 16 + 3; row 19 shares them in the high half.
        assert_eq!((block[3], block[19], block[15 * 16 + 3]), (0x31, 0x42, 0x08));
        assert_eq!(block.iter().filter(|&&b| b != 0).count(), 3);
    }

    #[test]
    fn sums_are_right_within_the_step() {
        let mut random = SplitMix64::new(5);
        for code_dim in [8, 48, 104, 184, 240, 320, 1024] {
            let mut uniform = || (random.next_u64() >> 40) as f32 / 16_777_216.0 - 0.5;
            let vector: Vec<f32> = (0..code_dim).map(|_| uniform()).collect();
            let mut block = vec![0u8; 4 * code_dim];
            let codes: Vec<Vec<u8>> = (0..32)
                .map(|_| (0..code_dim / 8).map(|_| ((uniform() + 0.5) * 256.0) as u8).collect())
                .collect();
            for (row, bits) in codes.iter().enumerate() {
                set_code(&mut block, row, bits);
            }
            let mut table = Table::new(code_dim);
            table.fill(&vector);
            for (row, sum) in table.sums(Kernels::best(), &block).into_iter().enumerate() {
                let bit = |i: usize| codes[row][i / 8] >> (i % 8) & 1 == 1;
                let exact: f32 = vector.iter().enumerate().map(|(i, &x)| if bit(i) { x } else { -x }).sum();
                let bound = table.step * 0.5 * (code_dim / 4) as f32 + 1e-3;
                assert!((sum - exact).abs() <= bound, "{sum} {exact}");
                assert!((sum - exact).abs() <= 0.1 * (code_dim as f32).sqrt(), "far below the worst case");
            }
        }
    }

    #[test]
    fn two_planes_are_four_levels() {
        let (mut block, mut random) = (vec![0; 2 * 4 * 64], SplitMix64::new(6));
        let codes: Vec<Vec<u8>> =
            (0..32).map(|_| (0..16).map(|_| random.next_u64().to_le_bytes()[2]).collect()).collect();
        for (row, bits) in codes.iter().enumerate() {
            set_code(&mut block, row, bits);
        }
        let vector: Vec<f32> = (0..64).map(|i| (i as f32).cos()).collect();
        let mut table = Table::new(64);
        table.fill(&vector);
        for (row, sum) in table.sums(Kernels::best(), &block).into_iter().enumerate() {
            let bit = |i: usize| if codes[row][i / 8] >> (i % 8) & 1 == 1 { 1.0 } else { -1.0 };
            let exact: f32 = (0..64).map(|i| vector[i] * (bit(i) + 0.5 * bit(64 + i))).sum();
            assert!((sum - exact).abs() <= 0.02 * 8.0 * 1.5, "{sum} {exact}");
        }
    }

    #[test]
    fn a_vector_of_zeros_has_sums_of_zero() {
        let mut table = Table::new(64);
        table.fill(&[0.0; 64]);
        assert_eq!(table.sums(Kernels::best(), &[0x5A; 256]), [0.0; 32]);
    }
}
