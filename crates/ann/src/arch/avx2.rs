//! Kernels for AVX2 with FMA: every x86 server since 2013 (Intel) and 2015 (AMD).

use super::{ResidualSums, scalar};
use std::arch::x86_64::*;

/// See [`super::Kernels::fastscan`]; two groups per step, otherwise as with AVX-512.
#[target_feature(enable = "avx2")]
pub fn fastscan(table: &[u8], codes: &[u8]) -> [u16; 32] {
    let low = _mm256_set1_epi8(15);
    let mut sums = [_mm256_setzero_si256(); 4];
    for (t, c) in table.chunks_exact(32).zip(codes.chunks_exact(32)) {
        // SAFETY: both chunks are 32 bytes; the loads need no alignment.
        let (t, c) =
            unsafe { (_mm256_loadu_si256(t.as_ptr().cast()), _mm256_loadu_si256(c.as_ptr().cast())) };
        let first = _mm256_shuffle_epi8(t, _mm256_and_si256(c, low));
        let second = _mm256_shuffle_epi8(t, _mm256_and_si256(_mm256_srli_epi16::<4>(c), low));
        sums[0] = _mm256_add_epi16(sums[0], first);
        sums[1] = _mm256_add_epi16(sums[1], _mm256_srli_epi16::<8>(first));
        sums[2] = _mm256_add_epi16(sums[2], second);
        sums[3] = _mm256_add_epi16(sums[3], _mm256_srli_epi16::<8>(second));
    }
    let mut out = [0u16; 32];
    for half in 0..2 {
        let odd = add_lanes(sums[2 * half + 1]);
        let even = _mm_sub_epi16(add_lanes(sums[2 * half]), _mm_slli_epi16::<8>(odd));
        let target = &mut out[16 * half..16 * half + 16];
        // SAFETY: `target` is 32 bytes, two stores of 16.
        unsafe {
            _mm_storeu_si128(target.as_mut_ptr().cast(), _mm_unpacklo_epi16(even, odd));
            _mm_storeu_si128(target.as_mut_ptr().add(8).cast(), _mm_unpackhi_epi16(even, odd));
        }
    }
    out
}

#[target_feature(enable = "avx2")]
fn add_lanes(x: __m256i) -> __m128i {
    _mm_add_epi16(_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x))
}

/// See [`super::Kernels::dot_f32_i8`].
#[target_feature(enable = "avx2,fma")]
pub fn dot_f32_i8(a: &[f32], b: &[i8]) -> f32 {
    let mut sums = [_mm256_setzero_ps(); 4];
    for (x, y) in a.chunks_exact(32).zip(b.chunks_exact(32)) {
        for (i, sum) in sums.iter_mut().enumerate() {
            // SAFETY: chunks of 32 elements, read 8 at a time.
            let (x, y) = unsafe {
                (_mm256_loadu_ps(x.as_ptr().add(8 * i)), _mm_loadl_epi64(y.as_ptr().add(8 * i).cast()))
            };
            *sum = _mm256_fmadd_ps(x, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(y)), *sum);
        }
    }
    let [a, b, c, d] = sums;
    let sum = _mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, d));
    let mut lanes = [0.0f32; 8];
    // SAFETY: `lanes` is 32 bytes.
    unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), sum) };
    lanes.iter().sum()
}

/// See [`super::Kernels::dot_i8`].
#[target_feature(enable = "avx2")]
pub fn dot_i8(a: &[i8], b: &[i8]) -> i32 {
    let mut sum = _mm256_setzero_si256();
    for (x, y) in a.chunks_exact(16).zip(b.chunks_exact(16)) {
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(widen(x), widen(y)));
    }
    add_all(sum)
}

/// Sixteen codes as 16-bit numbers.
#[target_feature(enable = "avx2")]
#[inline]
fn widen(x: &[i8]) -> __m256i {
    debug_assert!(x.len() == 16);
    // SAFETY: callers pass chunks of exactly 16 bytes.
    _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(x.as_ptr().cast()) })
}

#[target_feature(enable = "avx2")]
#[inline]
fn add_all(x: __m256i) -> i32 {
    let half = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x));
    let quarter = _mm_add_epi32(half, _mm_shuffle_epi32::<0b01_00_11_10>(half));
    _mm_cvtsi128_si32(_mm_add_epi32(quarter, _mm_shuffle_epi32::<0b10_11_00_01>(quarter)))
}

/// See [`super::Kernels::dots_i8`]. Four rows at a time: what is loaded and widened of `a` serves all, and the
/// processor waits for four rows at once.
#[target_feature(enable = "avx2")]
pub fn dots_i8(a: &[i8], rows: &[i8], chosen: &[u32], out: &mut [i32]) {
    let dim = a.len();
    for (out, chosen) in out.chunks_mut(4).zip(chosen.chunks(4)) {
        // Places after the end repeat the last row; their results are dropped.
        let four: [&[i8]; 4] =
            std::array::from_fn(|k| &rows[chosen[k.min(chosen.len() - 1)] as usize * dim..][..dim]);
        let mut sums = [_mm256_setzero_si256(); 4];
        for at in (0..dim).step_by(16) {
            let x = widen(&a[at..at + 16]);
            for (sum, row) in sums.iter_mut().zip(&four) {
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(x, widen(&row[at..at + 16])));
            }
        }
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = add_all(sum);
        }
    }
}

/// See [`super::Kernels::matrix_i8`]. Tiles of two by four rows, 16-bit products.
#[target_feature(enable = "avx2")]
pub fn matrix_i8(a: &[i8], b: &[i8], dim: usize, out: &mut [i32]) {
    let (m, n) = (a.len() / dim, b.len() / dim);
    for i in (0..m).step_by(2) {
        for j in (0..n).step_by(4) {
            // Rows after the end repeat the last one; their results are dropped.
            let left: [&[i8]; 2] = std::array::from_fn(|k| &a[(i + k).min(m - 1) * dim..][..dim]);
            let right: [&[i8]; 4] = std::array::from_fn(|k| &b[(j + k).min(n - 1) * dim..][..dim]);
            let mut sums = [[_mm256_setzero_si256(); 4]; 2];
            for at in (0..dim).step_by(16) {
                let x = [widen(&left[0][at..at + 16]), widen(&left[1][at..at + 16])];
                for (l, right) in right.iter().enumerate() {
                    let y = widen(&right[at..at + 16]);
                    sums[0][l] = _mm256_add_epi32(sums[0][l], _mm256_madd_epi16(x[0], y));
                    sums[1][l] = _mm256_add_epi32(sums[1][l], _mm256_madd_epi16(x[1], y));
                }
            }
            for (k, sums) in sums.iter().enumerate().take(m - i) {
                for (l, &sum) in sums.iter().enumerate().take(n - j) {
                    out[(i + k) * n + j + l] = add_all(sum);
                }
            }
        }
    }
}

/// See [`super::Kernels::dot_f32`].
#[target_feature(enable = "avx2,fma")]
pub fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
    scalar::dot_f32(a, b)
}

/// See [`super::Kernels::add_scaled`].
#[target_feature(enable = "avx2,fma")]
pub fn add_scaled(out: &mut [f32], factor: f32, other: &[f32]) {
    scalar::add_scaled(out, factor, other);
}

/// See [`super::Kernels::quantize`].
#[target_feature(enable = "avx2,fma")]
pub fn quantize(vector: &[f32], largest: f32, codes: &mut [i8]) -> (f32, f32) {
    scalar::quantize(vector, largest, codes)
}

/// See [`super::Kernels::largest`].
#[target_feature(enable = "avx2,fma")]
pub fn largest(vector: &[f32]) -> f32 {
    scalar::largest(vector)
}

/// See [`super::Kernels::decode`].
#[target_feature(enable = "avx2,fma")]
pub fn decode(base: &[f32], origin: &[f32], codes: &[i8], scale: f32, out: &mut [f32]) -> f32 {
    scalar::decode(base, origin, codes, scale, out)
}

/// See [`super::Kernels::residual`].
#[target_feature(enable = "avx2,fma")]
pub fn residual(base: &[f32], other: &[f32], center: &[f32], planes: usize, bits: &mut [u8]) -> ResidualSums {
    scalar::residual(base, other, center, planes, bits)
}
