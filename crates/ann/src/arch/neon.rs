//! Kernels for 64-bit ARM.

use super::{ResidualSums, scalar};
use std::arch::aarch64::*;

/// See [`super::Kernels::fastscan`]; one group per step.
#[target_feature(enable = "neon")]
pub fn fastscan(table: &[u8], codes: &[u8]) -> [u16; 32] {
    let mut sums = [vdupq_n_u16(0); 4];
    for (t, c) in table.chunks_exact(16).zip(codes.chunks_exact(16)) {
        // SAFETY: both chunks are 16 bytes.
        let (t, c) = unsafe { (vld1q_u8(t.as_ptr()), vld1q_u8(c.as_ptr())) };
        let first = vqtbl1q_u8(t, vandq_u8(c, vdupq_n_u8(15)));
        let second = vqtbl1q_u8(t, vshrq_n_u8::<4>(c));
        sums[0] = vaddw_u8(sums[0], vget_low_u8(first));
        sums[1] = vaddw_high_u8(sums[1], first);
        sums[2] = vaddw_u8(sums[2], vget_low_u8(second));
        sums[3] = vaddw_high_u8(sums[3], second);
    }
    let mut out = [0u16; 32];
    for (eight, sum) in out.chunks_exact_mut(8).zip(sums) {
        // SAFETY: a chunk is 16 bytes.
        unsafe { vst1q_u16(eight.as_mut_ptr(), sum) };
    }
    out
}

/// See [`super::Kernels::dot_f32_i8`].
#[target_feature(enable = "neon")]
pub fn dot_f32_i8(a: &[f32], b: &[i8]) -> f32 {
    let mut sums = [vdupq_n_f32(0.0); 4];
    for (x, y) in a.chunks_exact(16).zip(b.chunks_exact(16)) {
        // SAFETY: chunks of 16 elements.
        let codes = unsafe { vld1q_s8(y.as_ptr()) };
        let (low, high) = (vmovl_s8(vget_low_s8(codes)), vmovl_high_s8(codes));
        let parts = [
            vmovl_s16(vget_low_s16(low)),
            vmovl_high_s16(low),
            vmovl_s16(vget_low_s16(high)),
            vmovl_high_s16(high),
        ];
        for (i, part) in parts.into_iter().enumerate() {
            // SAFETY: four of the 16 elements of the chunk.
            let x = unsafe { vld1q_f32(x.as_ptr().add(4 * i)) };
            sums[i] = vfmaq_f32(sums[i], x, vcvtq_f32_s32(part));
        }
    }
    vaddvq_f32(vaddq_f32(vaddq_f32(sums[0], sums[1]), vaddq_f32(sums[2], sums[3])))
}

/// See [`super::Kernels::dot_i8`].
#[target_feature(enable = "neon")]
pub fn dot_i8(a: &[i8], b: &[i8]) -> i32 {
    let mut sums = [vdupq_n_s32(0); 2];
    for (x, y) in a.chunks_exact(16).zip(b.chunks_exact(16)) {
        // SAFETY: chunks of 16 bytes.
        let (x, y) = unsafe { (vld1q_s8(x.as_ptr()), vld1q_s8(y.as_ptr())) };
        // One product of codes needs 15 bits, so pairs are added in 32.
        sums[0] = vpadalq_s16(sums[0], vmull_s8(vget_low_s8(x), vget_low_s8(y)));
        sums[1] = vpadalq_s16(sums[1], vmull_high_s8(x, y));
    }
    vaddvq_s32(vaddq_s32(sums[0], sums[1]))
}

/// See [`super::Kernels::dots_i8`].
#[target_feature(enable = "neon")]
pub fn dots_i8(a: &[i8], rows: &[i8], chosen: &[u32], out: &mut [i32]) {
    for (out, &row) in out.iter_mut().zip(chosen) {
        *out = dot_i8(a, &rows[row as usize * a.len()..][..a.len()]);
    }
}

/// See [`super::Kernels::matrix_i8`].
#[target_feature(enable = "neon")]
pub fn matrix_i8(a: &[i8], b: &[i8], dim: usize, out: &mut [i32]) {
    let n = b.len() / dim;
    for (x, row) in a.chunks_exact(dim).zip(out.chunks_exact_mut(n)) {
        for (y, cell) in b.chunks_exact(dim).zip(row) {
            *cell = dot_i8(x, y);
        }
    }
}

/// See [`super::Kernels::dot_f32`].
#[target_feature(enable = "neon")]
pub fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
    scalar::dot_f32(a, b)
}

/// See [`super::Kernels::add_scaled`].
#[target_feature(enable = "neon")]
pub fn add_scaled(out: &mut [f32], factor: f32, other: &[f32]) {
    scalar::add_scaled(out, factor, other);
}

/// See [`super::Kernels::quantize`].
#[target_feature(enable = "neon")]
pub fn quantize(vector: &[f32], largest: f32, codes: &mut [i8]) -> (f32, f32) {
    scalar::quantize(vector, largest, codes)
}

/// See [`super::Kernels::largest`].
#[target_feature(enable = "neon")]
pub fn largest(vector: &[f32]) -> f32 {
    scalar::largest(vector)
}

/// See [`super::Kernels::decode`].
#[target_feature(enable = "neon")]
pub fn decode(base: &[f32], origin: &[f32], codes: &[i8], scale: f32, out: &mut [f32]) -> f32 {
    scalar::decode(base, origin, codes, scale, out)
}

/// See [`super::Kernels::residual`].
#[target_feature(enable = "neon")]
pub fn residual(base: &[f32], other: &[f32], center: &[f32], planes: usize, bits: &mut [u8]) -> ResidualSums {
    scalar::residual(base, other, center, planes, bits)
}
