//! Kernels for AVX-512 with VNNI.

use super::{ResidualSums, scalar};
use std::arch::x86_64::*;

/// See [`super::Kernels::fastscan`]. Four groups per step: byte shuffles look up 64 rows at once. The sums
/// of odd bytes also spill into the 16-bit sums of even ones and are taken out at the end. A last half step
/// looks up zeros in its upper part.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub fn fastscan(table: &[u8], codes: &[u8]) -> [u16; 32] {
    let low = _mm512_set1_epi8(15);
    let mut sums = [_mm512_setzero_si512(); 4];
    let mut add = |t, c| {
        let first = _mm512_shuffle_epi8(t, _mm512_and_si512(c, low));
        let second = _mm512_shuffle_epi8(t, _mm512_and_si512(_mm512_srli_epi16::<4>(c), low));
        sums[0] = _mm512_add_epi16(sums[0], first);
        sums[1] = _mm512_add_epi16(sums[1], _mm512_srli_epi16::<8>(first));
        sums[2] = _mm512_add_epi16(sums[2], second);
        sums[3] = _mm512_add_epi16(sums[3], _mm512_srli_epi16::<8>(second));
    };
    let (table, codes) = (table.chunks_exact(64), codes.chunks_exact(64));
    let rest = (table.remainder(), codes.remainder());
    for (t, c) in table.zip(codes) {
        // SAFETY: both chunks are 64 bytes; the loads need no alignment.
        unsafe { add(_mm512_loadu_si512(t.as_ptr().cast()), _mm512_loadu_si512(c.as_ptr().cast())) };
    }
    if let (Some(t), Some(c)) = (rest.0.first_chunk::<32>(), rest.1.first_chunk::<32>()) {
        // SAFETY: both are 32 bytes.
        let (t, c) =
            unsafe { (_mm256_loadu_si256(t.as_ptr().cast()), _mm256_loadu_si256(c.as_ptr().cast())) };
        add(_mm512_zextsi256_si512(t), _mm512_zextsi256_si512(c));
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

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn add_lanes(x: __m512i) -> __m128i {
    let half = _mm256_add_epi16(_mm512_castsi512_si256(x), _mm512_extracti64x4_epi64::<1>(x));
    _mm_add_epi16(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half))
}

/// See [`super::Kernels::dot_f32_i8`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub fn dot_f32_i8(a: &[f32], b: &[i8]) -> f32 {
    let mut sums = [_mm512_setzero_ps(); 4];
    for (x, y) in a.chunks_exact(64).zip(b.chunks_exact(64)) {
        for (i, sum) in sums.iter_mut().enumerate() {
            // SAFETY: chunks of 64 elements, read 16 at a time.
            let (x, y) = unsafe {
                (_mm512_loadu_ps(x.as_ptr().add(16 * i)), _mm_loadu_si128(y.as_ptr().add(16 * i).cast()))
            };
            *sum = _mm512_fmadd_ps(x, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(y)), *sum);
        }
    }
    let [a, b, c, d] = sums;
    _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d)))
}

/// See [`super::Kernels::dot_i8`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub fn dot_i8(a: &[i8], b: &[i8]) -> i32 {
    let mut sums = [_mm512_setzero_si512(); 2];
    for (x, y) in a.chunks_exact(64).zip(b.chunks_exact(64)) {
        for (i, sum) in sums.iter_mut().enumerate() {
            // SAFETY: chunks of 64 bytes, read 32 at a time.
            let (x, y) = unsafe {
                (
                    _mm256_loadu_si256(x.as_ptr().add(32 * i).cast()),
                    _mm256_loadu_si256(y.as_ptr().add(32 * i).cast()),
                )
            };
            *sum = _mm512_dpwssd_epi32(*sum, _mm512_cvtepi8_epi16(x), _mm512_cvtepi8_epi16(y));
        }
    }
    _mm512_reduce_add_epi32(_mm512_add_epi32(sums[0], sums[1]))
}

/// See [`super::Kernels::dots_i8`]. Four rows at a time. As in [`matrix_i8`], but the rows are moved to unsigned
/// numbers, and what is to be taken off, 128 times the sum of `a`, is summed up on the way.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub fn dots_i8(a: &[i8], rows: &[i8], chosen: &[u32], out: &mut [i32]) {
    let dim = a.len();
    let (flip, ones) = (_mm512_set1_epi8(-128), _mm512_set1_epi8(1));
    for (out, chosen) in out.chunks_mut(4).zip(chosen.chunks(4)) {
        // Places after the end repeat the last row; their results are dropped.
        let last = chosen.len() - 1;
        let row = |k: usize| &rows[chosen[k.min(last)] as usize * dim..][..dim];
        let four = [row(0), row(1), row(2), row(3)];
        let (mut sums, mut excess) = ([_mm512_setzero_si512(); 4], _mm512_setzero_si512());
        for at in (0..dim).step_by(64) {
            // SAFETY: five slices of `dim` bytes, a multiple of 64; the loads need no alignment.
            let load = |row: &[i8]| unsafe { _mm512_loadu_si512(row.as_ptr().add(at).cast()) };
            let x = load(a);
            excess = _mm512_dpbusd_epi32(excess, ones, x);
            for (sum, row) in sums.iter_mut().zip(four) {
                *sum = _mm512_dpbusd_epi32(*sum, _mm512_xor_si512(load(row), flip), x);
            }
        }
        let excess = _mm512_slli_epi32::<7>(excess);
        let dots = add_each(sums.map(|sum| _mm512_sub_epi32(sum, excess)));
        let mut four = [0i32; 4];
        // SAFETY: `four` is 16 bytes.
        unsafe { _mm_storeu_si128(four.as_mut_ptr().cast(), dots) };
        out.copy_from_slice(&four[..out.len()]);
    }
}

/// The sums of the elements of four vectors.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
fn add_each([a, b, c, d]: [__m512i; 4]) -> __m128i {
    let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    let all = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    let half = _mm256_add_epi32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64::<1>(all));
    _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half))
}

/// See [`super::Kernels::matrix_i8`]. Tiles of four by four rows. The instruction multiplies unsigned by
/// signed bytes, so `a + 128` is used and 128 times the sum of each row of `b` taken off again.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub fn matrix_i8(a: &[i8], b: &[i8], dim: usize, out: &mut [i32]) {
    let (m, n) = (a.len() / dim, b.len() / dim);
    let excess: Vec<i32> = b.chunks_exact(dim).map(|row| sum_i8(row) * 128).collect();
    for i in (0..m).step_by(4) {
        for j in (0..n).step_by(4) {
            // Rows after the end repeat the last one; their results are dropped.
            let row = |x: &[i8], count: usize, k: usize| x[k.min(count - 1) * dim..][..dim].as_ptr();
            let left: [*const i8; 4] = std::array::from_fn(|k| row(a, m, i + k));
            let right: [*const i8; 4] = std::array::from_fn(|k| row(b, n, j + k));
            // SAFETY: eight rows of `dim` bytes, each from a slice of that length.
            let tile = unsafe { tile(left, right, dim) };
            for (k, sums) in tile.iter().enumerate().take(m - i) {
                for (l, &sum) in sums.iter().enumerate().take(n - j) {
                    out[(i + k) * n + j + l] = sum - excess[j + l];
                }
            }
        }
    }
}

/// # Safety
/// Each pointer must be good for reading `dim` bytes, a multiple of 64.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
unsafe fn tile(left: [*const i8; 4], right: [*const i8; 4], dim: usize) -> [[i32; 4]; 4] {
    let flip = _mm512_set1_epi8(-128);
    let mut sums = [[_mm512_setzero_si512(); 4]; 4];
    for at in (0..dim).step_by(64) {
        // SAFETY: `at + 64 <= dim`, by the caller's promise.
        let load = |row: *const i8| unsafe { _mm512_loadu_si512(row.add(at).cast()) };
        let y = [load(right[0]), load(right[1]), load(right[2]), load(right[3])];
        for k in 0..4 {
            let x = _mm512_xor_si512(load(left[k]), flip);
            for l in 0..4 {
                sums[k][l] = _mm512_dpbusd_epi32(sums[k][l], x, y[l]);
            }
        }
    }
    let mut out = [[0; 4]; 4];
    for (row, sums) in out.iter_mut().zip(sums) {
        let sum = add_each(sums);
        // SAFETY: `row` is 16 bytes.
        unsafe { _mm_storeu_si128(row.as_mut_ptr().cast(), sum) };
    }
    out
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn sum_i8(row: &[i8]) -> i32 {
    let ones = _mm512_set1_epi8(1);
    let mut sum = _mm512_setzero_si512();
    for x in row.chunks_exact(64) {
        // SAFETY: a chunk is 64 bytes.
        sum = _mm512_dpbusd_epi32(sum, ones, unsafe { _mm512_loadu_si512(x.as_ptr().cast()) });
    }
    _mm512_reduce_add_epi32(sum)
}

/// See [`super::Kernels::dot_f32`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [_mm512_setzero_ps(); 4];
    for (x, y) in a.chunks_exact(64).zip(b.chunks_exact(64)) {
        for (i, sum) in sums.iter_mut().enumerate() {
            // SAFETY: chunks of 64 elements, read 16 at a time.
            let (x, y) =
                unsafe { (_mm512_loadu_ps(x.as_ptr().add(16 * i)), _mm512_loadu_ps(y.as_ptr().add(16 * i))) };
            *sum = _mm512_fmadd_ps(x, y, *sum);
        }
    }
    let [a, b, c, d] = sums;
    _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d)))
}

/// See [`super::Kernels::add_scaled`]. Written out, as are those above and below: for this processor the compiler turns the loops of
/// [`scalar`] inside out, and gathers and scatters single elements, which takes ten times as long.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub fn add_scaled(out: &mut [f32], factor: f32, other: &[f32]) {
    let factor = _mm512_set1_ps(factor);
    for (out, other) in out.chunks_exact_mut(16).zip(other.chunks_exact(16)) {
        // SAFETY: chunks of 16 elements; neither loads nor stores need alignment.
        unsafe {
            let product = _mm512_mul_ps(factor, _mm512_loadu_ps(other.as_ptr()));
            _mm512_storeu_ps(out.as_mut_ptr(), _mm512_add_ps(_mm512_loadu_ps(out.as_ptr()), product));
        }
    }
}

/// See [`super::Kernels::decode`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub fn decode(base: &[f32], origin: &[f32], codes: &[i8], scale: f32, out: &mut [f32]) -> f32 {
    let (scale, mut largest) = (_mm512_set1_ps(scale), _mm512_setzero_ps());
    let vectors = base.chunks_exact(16).zip(origin.chunks_exact(16));
    for (((b, o), c), out) in vectors.zip(codes.chunks_exact(16)).zip(out.chunks_exact_mut(16)) {
        // SAFETY: chunks of 16 elements; neither loads nor stores need alignment.
        unsafe {
            let codes = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(c.as_ptr().cast())));
            let base = _mm512_sub_ps(_mm512_loadu_ps(b.as_ptr()), _mm512_loadu_ps(o.as_ptr()));
            let x = _mm512_add_ps(base, _mm512_mul_ps(scale, codes));
            largest = _mm512_max_ps(largest, _mm512_abs_ps(x));
            _mm512_storeu_ps(out.as_mut_ptr(), x);
        }
    }
    _mm512_reduce_max_ps(largest)
}

/// See [`super::Kernels::largest`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub fn largest(vector: &[f32]) -> f32 {
    let mut largest = _mm512_setzero_ps();
    for x in vector.chunks_exact(16) {
        // SAFETY: a chunk of 16 elements.
        largest = _mm512_max_ps(largest, _mm512_abs_ps(unsafe { _mm512_loadu_ps(x.as_ptr()) }));
    }
    _mm512_reduce_max_ps(largest)
}

/// See [`super::Kernels::quantize`]. The processor rounds to the even one of two as the reference does.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub fn quantize(vector: &[f32], largest: f32, codes: &mut [i8]) -> (f32, f32) {
    let (scale, inverse) = (largest / 127.0, 127.0 / largest);
    if !inverse.is_finite() || scale < f32::MIN_POSITIVE {
        codes.fill(0);
        return (0.0, 0.0);
    }
    let (inverse, mut squares) = (_mm512_set1_ps(inverse), _mm512_setzero_si512());
    for (x, codes) in vector.chunks_exact(16).zip(codes.chunks_exact_mut(16)) {
        // SAFETY: chunks of 16 elements.
        unsafe {
            let numbers = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x.as_ptr()), inverse));
            squares = _mm512_add_epi32(squares, _mm512_mullo_epi32(numbers, numbers));
            _mm_storeu_si128(codes.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(numbers));
        }
    }
    #[allow(clippy::cast_precision_loss, reason = "as in the reference")]
    let squares = i64::from(_mm512_reduce_add_epi32(squares)) as f32;
    (scale, scale * scale * squares)
}

/// See [`super::Kernels::residual`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub fn residual(base: &[f32], other: &[f32], center: &[f32], planes: usize, bits: &mut [u8]) -> ResidualSums {
    scalar::residual(base, other, center, planes, bits)
}
