//! The kernels in plain Rust: the reference, and the fallback.

use super::ResidualSums;

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

/// Elements that the loops below take at a time. They are inlined into functions compiled for wider registers, where
/// the loops over lanes become vector code.
const LANES: usize = 16;

/// See [`super::Kernels::dot_f32`].
#[inline(always)]
pub fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [[0.0f32; LANES]; 2];
    for (a, b) in a.chunks_exact(2 * LANES).zip(b.chunks_exact(2 * LANES)) {
        for half in 0..2 {
            for i in 0..LANES {
                sums[half][i] += a[half * LANES + i] * b[half * LANES + i];
            }
        }
    }
    let [low, high] = sums;
    low.iter().zip(high).map(|(low, high)| low + high).sum()
}

/// See [`super::Kernels::add_scaled`].
#[inline(always)]
pub fn add_scaled(out: &mut [f32], factor: f32, other: &[f32]) {
    for (out, other) in out.chunks_exact_mut(LANES).zip(other.chunks_exact(LANES)) {
        for i in 0..LANES {
            out[i] += factor * other[i];
        }
    }
}

/// See [`super::Kernels::decode`].
#[inline(always)]
pub fn decode(base: &[f32], origin: &[f32], codes: &[i8], scale: f32, out: &mut [f32]) -> f32 {
    let mut sizes = [0.0f32; LANES];
    let vectors = base.chunks_exact(LANES).zip(origin.chunks_exact(LANES));
    for (((b, o), c), out) in vectors.zip(codes.chunks_exact(LANES)).zip(out.chunks_exact_mut(LANES)) {
        for i in 0..LANES {
            out[i] = (b[i] - o[i]) + scale * f32::from(c[i]);
            let size = out[i].abs();
            sizes[i] = if size > sizes[i] { size } else { sizes[i] };
        }
    }
    sizes.iter().fold(0.0, |m, &x| m.max(x))
}

/// See [`super::Kernels::largest`].
#[inline(always)]
pub fn largest(vector: &[f32]) -> f32 {
    let mut sizes = [0.0f32; LANES];
    for x in vector.chunks_exact(LANES) {
        for i in 0..LANES {
            let size = x[i].abs();
            sizes[i] = if size > sizes[i] { size } else { sizes[i] };
        }
    }
    sizes.iter().fold(0.0, |m, &x| m.max(x))
}

/// See [`super::Kernels::quantize`].
#[inline(always)]
pub fn quantize(vector: &[f32], largest: f32, codes: &mut [i8]) -> (f32, f32) {
    let (scale, inverse) = (largest / 127.0, 127.0 / largest);
    if !inverse.is_finite() || scale < f32::MIN_POSITIVE {
        codes.fill(0);
        return (0.0, 0.0);
    }
    let mut squares = [0i32; LANES];
    for (x, codes) in vector.chunks_exact(LANES).zip(codes.chunks_exact_mut(LANES)) {
        for i in 0..LANES {
            codes[i] = nearest(x[i] * inverse);
            squares[i] += i32::from(codes[i]) * i32::from(codes[i]);
        }
    }
    let squares: i64 = squares.iter().map(|&x| i64::from(x)).sum();
    (scale, scale * scale * squares as f32)
}

/// The nearest integer, the even one of two. `x` is within -127 to 127. With 1.5 * 2^23 added, a float has no bits for
/// fractions and the integer in its last bits; unlike a call of `rint`, this is done for several numbers at once.
#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "the last byte is meant")]
pub(crate) fn nearest(x: f32) -> i8 {
    ((x + 12_582_912.0).to_bits() as u8).cast_signed()
}

/// See [`super::Kernels::residual`].
#[inline(always)]
pub fn residual(base: &[f32], other: &[f32], center: &[f32], planes: usize, bits: &mut [u8]) -> ResidualSums {
    let coded = bits.len() / planes * 8;
    let mut sums = [[0.0f32; LANES]; 3];
    let mut coded_squares = [0.0f32; LANES];
    for (chunk, ((b, o), c)) in
        base.chunks_exact(LANES).zip(other.chunks_exact(LANES)).zip(center.chunks_exact(LANES)).enumerate()
    {
        let mut squares = [0.0f32; LANES];
        for i in 0..LANES {
            let r = o[i] - b[i];
            squares[i] = r * r;
            sums[0][i] += squares[i];
            sums[1][i] += b[i] * r;
            sums[2][i] += c[i] * r;
        }
        let left = coded.saturating_sub(chunk * LANES);
        if left >= LANES {
            (0..LANES).for_each(|i| coded_squares[i] += squares[i]);
        } else if left > 0 {
            (0..LANES / 2).for_each(|i| coded_squares[i] += squares[i]);
        }
    }
    let [norm_squared, base_dot, center_dot] = sums.map(|s| s.iter().sum());
    let deviation = (coded_squares.iter().sum::<f32>() / coded.max(1) as f32).sqrt();
    let (magnitude, base_code) = encode(base, other, planes, deviation * super::TWO_BIT_STEP, bits);
    ResidualSums { norm_squared, magnitude, base_code, base_dot, center_dot }
}

/// The code of a residual, and its inner products with the residual and the base.
#[inline(always)]
fn encode(base: &[f32], other: &[f32], planes: usize, threshold: f32, bits: &mut [u8]) -> (f32, f32) {
    const HALF: usize = LANES / 2;
    let plane = bits.len() / planes;
    let (signs, halves) = bits.split_at_mut(plane);
    let mut sums = [[0.0f32; HALF]; 2];
    let chunks = base.chunks_exact(HALF).zip(other.chunks_exact(HALF));
    for (at, (sign, (b, o))) in signs.iter_mut().zip(chunks).enumerate() {
        let (mut positive, mut far) = (0u8, 0u8);
        for i in 0..HALF {
            let r = o[i] - b[i];
            let is_far = planes == 1 || r.abs() > threshold;
            let level = if planes == 1 {
                1.0
            } else if is_far {
                1.5
            } else {
                0.5
            };
            let level = if r >= 0.0 { level } else { -level };
            sums[0][i] += r * level;
            sums[1][i] += b[i] * level;
            positive |= u8::from(r >= 0.0) << i;
            far |= u8::from(is_far) << i;
        }
        *sign = positive;
        if let Some(half) = halves.get_mut(at) {
            // Half a level up where the sign is up and the residual far, or the sign down and the residual near.
            *half = !(positive ^ far);
        }
    }
    let [magnitude, base_code] = sums.map(|s| s.iter().sum());
    (magnitude, base_code)
}
