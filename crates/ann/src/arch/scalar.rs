//! The kernels in plain Rust: the reference, and the fallback.

use super::{ResidualSums, Scaled};

/// See [`super::Kernels::fastscan`].
pub fn fastscan(table: &[u8], codes: &[u8]) -> [u16; 32] {
    let mut sums = [0u16; 32];
    for (entries, bytes) in table.chunks_exact(16).zip(codes.chunks_exact(16)) {
        for (i, &byte) in bytes.iter().enumerate() {
            sums[i] += u16::from(entries[usize::from(byte & 15)]);
            sums[i + 16] += u16::from(entries[usize::from(byte >> 4)]);
        }
    }
    sums
}

/// See [`super::Kernels::dot_f32_i8`].
pub fn dot_f32_i8(a: &[f32], b: &[i8]) -> f32 {
    let mut sums = [0.0f32; 16];
    for (x, y) in a.chunks_exact(16).zip(b.chunks_exact(16)) {
        for i in 0..16 {
            sums[i] += x[i] * f32::from(y[i]);
        }
    }
    sums.iter().sum()
}

/// See [`super::Kernels::dot_i8`].
pub fn dot_i8(a: &[i8], b: &[i8]) -> i32 {
    a.iter().zip(b).map(|(&x, &y)| i32::from(x) * i32::from(y)).sum()
}

/// See [`super::Kernels::dots_i8`].
pub fn dots_i8(a: &[i8], rows: &[i8], chosen: &[u32], out: &mut [i32]) {
    for (out, &row) in out.iter_mut().zip(chosen) {
        *out = dot_i8(a, &rows[row as usize * a.len()..][..a.len()]);
    }
}

/// See [`super::Kernels::matrix_i8`].
pub fn matrix_i8(a: &[i8], b: &[i8], dim: usize, out: &mut [i32]) {
    let n = b.len() / dim;
    for (x, row) in a.chunks_exact(dim).zip(out.chunks_exact_mut(n)) {
        for (y, cell) in b.chunks_exact(dim).zip(row) {
            *cell = dot_i8(x, y);
        }
    }
}

/// Elements that the loops below take at a time.
const LANES: usize = 16;

/// See [`super::Kernels::residual`]. Inlined into functions compiled for wider registers: the loops over
/// 16 lanes become vector code there.
#[inline(always)]
pub fn residual(base: Scaled, other: Scaled, center: &[f32], bits: &mut [u8]) -> ResidualSums {
    let mut sums = [[0.0f32; LANES]; 5];
    let chunks = base.codes.chunks_exact(LANES).zip(other.codes.chunks_exact(LANES));
    for (chunk, ((b, o), c)) in chunks.zip(center.chunks_exact(LANES)).enumerate() {
        let (mut r, mut x) = ([0.0f32; LANES], [0.0f32; LANES]);
        for i in 0..LANES {
            x[i] = base.scale * f32::from(b[i]);
            r[i] = other.scale * f32::from(o[i]) - x[i];
            sums[0][i] += r[i] * r[i];
            sums[3][i] += x[i] * r[i];
            sums[4][i] += c[i] * r[i];
        }
        match bits.get_mut(2 * chunk..).unwrap_or_default() {
            [] => {}
            [low, high, ..] => [*low, *high] = signs::<LANES>(&r, &x, &mut sums).to_le_bytes(),
            // The code ends in the middle of the chunk.
            [low] => [*low, _] = signs::<8>(&r, &x, &mut sums).to_le_bytes(),
        }
    }
    let [norm_squared, magnitude, base_signs, base_dot, center_dot] = sums.map(|s| s.iter().sum());
    ResidualSums { norm_squared, magnitude, base_signs, base_dot, center_dot }
}

/// Signs of the first `N` elements of a residual `r` to a base `x`, and their part of the sums.
#[inline(always)]
fn signs<const N: usize>(r: &[f32; LANES], x: &[f32; LANES], sums: &mut [[f32; LANES]; 5]) -> u16 {
    let mut code = 0u16;
    for i in 0..N {
        sums[1][i] += r[i].abs();
        sums[2][i] += if r[i] >= 0.0 { x[i] } else { -x[i] };
        code |= u16::from(r[i] >= 0.0) << i;
    }
    code
}
