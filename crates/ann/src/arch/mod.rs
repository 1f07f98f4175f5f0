//! The numeric kernels, one instantiation for each instruction set, chosen at run time.
//!
//! This is the one module of the crate with unsafe code: vector loads through pointers, and calls of
//! functions compiled for processor features. It lives here and not in the vector crate because these
//! kernels read the page formats of this crate and nothing else uses them. [`scalar`] is the reference
//! that every other instantiation is tested against.
#![allow(unsafe_code, reason = "intrinsics load through pointers; the rest of the crate forbids it")]

pub mod scalar;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

/// An instruction set that this build has kernels for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Portable code.
    Scalar,
    /// AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F, BW, VL and VNNI: servers since 2019 (Intel) and 2022 (AMD).
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// Part of every 64-bit ARM.
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Level {
    /// The levels that this processor can run, best last.
    #[must_use]
    pub fn available() -> Vec<Level> {
        #[allow(unused_mut, reason = "other architectures have the portable code only")]
        let mut levels = vec![Level::Scalar];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                levels.push(Level::Avx2);
                let vnni = is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni");
                if vnni {
                    levels.push(Level::Avx512);
                }
            }
        }
        #[cfg(target_arch = "aarch64")]
        levels.push(Level::Neon);
        levels
    }

    /// The best level that this processor can run.
    #[must_use]
    pub fn best() -> Level {
        *Level::available().last().expect("scalar is always there")
    }
}

/// The kernels of one level. Having one proves that the processor can run it.
#[derive(Clone, Copy, Debug)]
pub struct Kernels {
    level: Level,
}

/// What [`Kernels::residual`] sums up. `r` is the residual, `l` its code over the coded dimensions, `b`
/// the base and `c` the center.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ResidualSums {
    /// `<r, r>` over all dimensions.
    pub norm_squared: f32,
    /// `<r, l>` over the coded dimensions.
    pub magnitude: f32,
    /// `<b, l>` over the coded dimensions.
    pub base_code: f32,
    /// `<b, r>` over all dimensions.
    pub base_dot: f32,
    /// `<c, r>` over all dimensions.
    pub center_dot: f32,
}

/// Where a code of two bits changes from the inner level to the outer one, in deviations of the residual: the levels
/// -1.5, -.5, .5 and 1.5 of this step lose least of normal numbers (Max 1960).
pub const TWO_BIT_STEP: f32 = 0.9957;

/// Calls the function of the level; the functions of other levels are compiled for features that the
/// processor may lack, hence unsafe.
macro_rules! dispatch {
    ($self:ident, $name:ident ( $($arg:expr),* )) => {
        match $self.level {
            Level::Scalar => scalar::$name($($arg),*),
            // SAFETY: `Kernels` is only made for levels that `Level::available` found on this processor,
            // and slice lengths were checked by the caller.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { avx2::$name($($arg),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => unsafe { avx512::$name($($arg),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Level::Neon => unsafe { neon::$name($($arg),*) },
        }
    };
}

/// Asks the processor to fetch codes that are read soon, so that many are waited for at once, not one after another. Where there is
/// no such instruction, nothing happens.
#[inline]
pub fn prefetch(codes: &[i8]) {
    #[cfg(target_arch = "x86_64")]
    for line in codes.chunks(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint; the address is that of a slice.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = codes;
}

impl Kernels {
    /// The best kernels for this processor.
    #[must_use]
    pub fn best() -> Self {
        Self { level: Level::best() }
    }

    /// The kernels of a level, `None` if the processor cannot run them.
    #[must_use]
    pub fn of(level: Level) -> Option<Self> {
        Level::available().contains(&level).then_some(Self { level })
    }

    /// Adds up, for each of 32 codes, one table entry per group of four dimensions.
    ///
    /// `table` and `codes` are `[groups, 16]` bytes: 16 entries per group; the codes of rows 0 to 15 in
    /// the low and of rows 16 to 31 in the high halves. At most 256 groups, so that sums fit 16 bits.
    ///
    /// # Panics
    /// If the lengths differ, are no multiple of 32 bytes or exceed 256 groups.
    #[inline]
    #[must_use]
    pub fn fastscan(&self, table: &[u8], codes: &[u8]) -> [u16; 32] {
        assert!(table.len() == codes.len() && table.len().is_multiple_of(32) && table.len() <= 4096);
        dispatch!(self, fastscan(table, codes))
    }

    /// Inner product of floats and codes.
    ///
    /// # Panics
    /// If the lengths differ or are no multiple of 64.
    #[inline]
    #[must_use]
    pub fn dot_f32_i8(&self, a: &[f32], b: &[i8]) -> f32 {
        assert!(a.len() == b.len() && a.len().is_multiple_of(64));
        dispatch!(self, dot_f32_i8(a, b))
    }

    /// Inner product of codes.
    ///
    /// # Panics
    /// If the lengths differ or are no multiple of 64.
    #[inline]
    #[must_use]
    pub fn dot_i8(&self, a: &[i8], b: &[i8]) -> i32 {
        assert!(a.len() == b.len() && a.len().is_multiple_of(64));
        dispatch!(self, dot_i8(a, b))
    }

    /// Inner products of `a`, `[dim]`, with some of the `rows`, `[n, dim]`, chosen by number, into `out`.
    ///
    /// # Panics
    /// If `dim` is no multiple of 64, a row does not exist, or the lengths do not agree.
    pub fn dots_i8(&self, a: &[i8], rows: &[i8], chosen: &[u32], out: &mut [i32]) {
        let dim = a.len();
        assert!(dim.is_multiple_of(64) && dim > 0 && chosen.len() == out.len());
        assert!(chosen.iter().all(|&row| (row as usize) < rows.len() / dim));
        dispatch!(self, dots_i8(a, rows, chosen, out));
    }

    /// All inner products of the rows of `a`, `[m, dim]`, with those of `b`, `[n, dim]`, into `out`, `[m, n]`.
    ///
    /// # Panics
    /// If `dim` is no multiple of 64 or the lengths do not agree.
    pub fn matrix_i8(&self, a: &[i8], b: &[i8], dim: usize, out: &mut [i32]) {
        assert!(
            dim.is_multiple_of(64) && dim > 0 && a.len().is_multiple_of(dim) && b.len().is_multiple_of(dim)
        );
        assert_eq!(out.len(), a.len() / dim * (b.len() / dim));
        dispatch!(self, matrix_i8(a, b, dim, out));
    }

    /// Inner product of floats.
    ///
    /// # Panics
    /// If the lengths differ or are no multiple of 64.
    #[inline]
    #[must_use]
    pub fn dot_f32(&self, a: &[f32], b: &[f32]) -> f32 {
        assert!(a.len() == b.len() && a.len().is_multiple_of(64));
        dispatch!(self, dot_f32(a, b))
    }

    /// Adds `factor * other` to `out`.
    ///
    /// # Panics
    /// If the lengths differ or are no multiple of 16.
    pub fn add_scaled(&self, out: &mut [f32], factor: f32, other: &[f32]) {
        assert!(out.len() == other.len() && out.len().is_multiple_of(16));
        dispatch!(self, add_scaled(out, factor, other));
    }

    /// Writes `base - origin + scale * codes` into `out`; answers the size of its largest element.
    ///
    /// # Panics
    /// If the lengths differ or are no multiple of 16.
    pub fn decode(&self, base: &[f32], origin: &[f32], codes: &[i8], scale: f32, out: &mut [f32]) -> f32 {
        let n = out.len();
        assert!(base.len() == n && origin.len() == n && codes.len() == n && n.is_multiple_of(16));
        dispatch!(self, decode(base, origin, codes, scale, out))
    }

    /// The size of the largest element.
    ///
    /// # Panics
    /// If the length is no multiple of 16.
    #[must_use]
    pub fn largest(&self, vector: &[f32]) -> f32 {
        assert!(vector.len().is_multiple_of(16));
        dispatch!(self, largest(vector))
    }

    /// `vector` as 8-bit integers with one scale; answers the scale and the squared norm of what they stand for. Elements
    /// are finite, and none is larger than `largest`. What is too short for f32 becomes zero.
    ///
    /// # Panics
    /// If the lengths differ or are no multiple of 16.
    pub fn quantize(&self, vector: &[f32], largest: f32, codes: &mut [i8]) -> (f32, f32) {
        assert!(vector.len() == codes.len() && vector.len().is_multiple_of(16));
        dispatch!(self, quantize(vector, largest, codes))
    }

    /// The code of `other - base` and the sums that its factors are made of. `bits` has one bit per coded
    /// dimension for each plane: set where the residual is not negative; then, with two planes, set where the level lies
    /// half a step above that of the sign alone. Levels are 1 with one plane, .5 and 1.5 with two.
    ///
    /// # Panics
    /// If the lengths do not agree, those of vectors are no multiples of 64, or `bits` has more than theirs.
    pub fn residual(
        &self,
        base: &[f32],
        other: &[f32],
        center: &[f32],
        planes: usize,
        bits: &mut [u8],
    ) -> ResidualSums {
        let n = base.len();
        assert!(n == other.len() && n == center.len() && n.is_multiple_of(64));
        assert!(matches!(planes, 1 | 2) && bits.len().is_multiple_of(planes) && bits.len() / planes * 8 <= n);
        dispatch!(self, residual(base, other, center, planes, bits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn others() -> impl Iterator<Item = Kernels> {
        Level::available().into_iter().filter_map(Kernels::of)
    }

    fn codes(blocks: std::ops::Range<usize>) -> impl Strategy<Value = (Vec<i8>, Vec<i8>)> {
        pairs(64, blocks)
    }

    fn pairs(step: usize, steps: std::ops::Range<usize>) -> impl Strategy<Value = (Vec<i8>, Vec<i8>)> {
        steps.prop_flat_map(move |n| {
            let one = move || proptest::collection::vec(any::<i8>(), n * step);
            (one(), one())
        })
    }

    proptest! {
        #[test]
        fn fastscan_agrees((a, b) in pairs(32, 0..129)) {
            let (a, b): (Vec<u8>, Vec<u8>) =
                (a.iter().map(|x| x.cast_unsigned()).collect(), b.iter().map(|x| x.cast_unsigned()).collect());
            for k in others() {
                prop_assert_eq!(k.fastscan(&a, &b), scalar::fastscan(&a, &b), "{:?}", k);
            }
        }

        #[test]
        fn dots_agree((a, b) in codes(1..64)) {
            let floats: Vec<f32> = a.iter().map(|&x| f32::from(x) * 0.37).collect();
            let wanted = scalar::dot_f32_i8(&floats, &b);
            let size: f32 = floats.iter().zip(&b).map(|(x, &y)| (x * f32::from(y)).abs()).sum();
            for k in others() {
                prop_assert_eq!(k.dot_i8(&a, &b), scalar::dot_i8(&a, &b), "{:?}", k);
                let got = k.dot_f32_i8(&floats, &b);
                prop_assert!((got - wanted).abs() <= 1e-5 * size + 1e-6, "{:?}: {} {}", k, got, wanted);
            }
        }

        #[test]
        fn matrices_agree(m in 1usize..11, n in 1usize..11, blocks in 1usize..4, seed: u64) {
            let dim = 64 * blocks;
            let mut random = crate::random::SplitMix64::new(seed);
            let mut rows = |n: usize| -> Vec<i8> {
                (0..n * dim).map(|_| random.next_u64().to_le_bytes()[3].cast_signed()).collect()
            };
            let (a, b) = (rows(m), rows(n));
            let (mut got, mut wanted) = (vec![0; m * n], vec![0; m * n]);
            scalar::matrix_i8(&a, &b, dim, &mut wanted);
            for k in others() {
                k.matrix_i8(&a, &b, dim, &mut got);
                prop_assert_eq!(&got, &wanted, "{:?}", k);
                let chosen: Vec<u32> = (0..n as u32).rev().collect();
                let mut dots = vec![0; n];
                k.dots_i8(&a[..dim], &b, &chosen, &mut dots);
                dots.reverse();
                prop_assert_eq!(&dots, &wanted[..n], "{:?}", k);
            }
        }

        #[test]
        fn residuals_agree((a, b) in codes(1..20), keep in 0usize..160, planes in 1usize..3) {
            let coded = keep.min(a.len() / 8);
            let float = |codes: &[i8], scale: f32| -> Vec<f32> { codes.iter().map(|&x| f32::from(x) * scale).collect() };
            let (base, other, center) = (float(&a, 0.5), float(&b, 0.25), float(&b, 0.01));
            let (mut bits, mut wanted_bits) = (vec![0; planes * coded], vec![0; planes * coded]);
            let w = scalar::residual(&base, &other, &center, planes, &mut wanted_bits);
            // The sums are those of the code.
            let bit = |i: usize| wanted_bits[i / 8] >> (i % 8) & 1 == 1;
            let level = |i: usize| match (planes, bit(i)) {
                (1, sign) => if sign { 1.0 } else { -1.0 },
                (_, sign) => (if sign { 1.0 } else { -1.0 }) + if bit(8 * coded + i) { 0.5 } else { -0.5 },
            };
            let product: f32 = (0..8 * coded).map(|i| (other[i] - base[i]) * level(i)).sum();
            prop_assert!((product - w.magnitude).abs() <= 1e-4 * (1.0 + w.magnitude.abs()), "{product} {w:?}");
            for k in others() {
                let g = k.residual(&base, &other, &center, planes, &mut bits);
                prop_assert_eq!(&bits, &wanted_bits, "{:?}", k);
                let size = 1e-4 * (1.0 + w.norm_squared);
                for (x, y) in [
                    (g.norm_squared, w.norm_squared), (g.magnitude, w.magnitude), (g.base_code, w.base_code),
                    (g.base_dot, w.base_dot), (g.center_dot, w.center_dot),
                ] {
                    prop_assert!((x - y).abs() <= size, "{:?}: {:?} {:?}", k, g, w);
                }
            }
        }

        #[test]
        fn floats_agree((a, b) in codes(1..20), factor in -2.0f32..2.0) {
            let float = |codes: &[i8]| -> Vec<f32> { codes.iter().map(|&x| f32::from(x) * 0.37).collect() };
            let (x, y) = (float(&a), float(&b));
            let size: f32 = x.iter().zip(&y).map(|(x, y)| (x * y).abs()).sum();
            for k in others() {
                prop_assert!((k.dot_f32(&x, &y) - scalar::dot_f32(&x, &y)).abs() <= 1e-5 * size + 1e-6);
                let (mut got, mut wanted) = (x.clone(), x.clone());
                k.add_scaled(&mut got, factor, &y);
                scalar::add_scaled(&mut wanted, factor, &y);
                prop_assert!(got.iter().zip(&wanted).all(|(x, y)| (x - y).abs() <= 1e-3));
                let (mut codes, mut wanted) = (vec![0; a.len()], vec![0; a.len()]);
                let largest = scalar::largest(&x);
                prop_assert_eq!(k.largest(&x), largest);
                let described = k.quantize(&x, largest, &mut codes);
                prop_assert_eq!(described, scalar::quantize(&x, largest, &mut wanted));
                prop_assert_eq!(codes, wanted);
                let (mut got, mut wanted) = (vec![0.0; x.len()], vec![0.0; x.len()]);
                let size = k.decode(&x, &y, &b, factor, &mut got);
                prop_assert_eq!(size, scalar::decode(&x, &y, &b, factor, &mut wanted));
                prop_assert_eq!(got, wanted);
            }
        }
    }

    #[test]
    fn quantizing_keeps_the_direction() {
        for power in [-15, 0, 15] {
            let x: Vec<f32> = (0..64).map(|i| (i as f32).sin() * 10f32.powi(power)).collect();
            let mut codes = [0; 64];
            let kernels = Kernels::best();
            let (scale, norm_squared) = kernels.quantize(&x, kernels.largest(&x), &mut codes);
            let wanted: f32 = x.iter().map(|x| x * x).sum();
            assert!((norm_squared / wanted - 1.0).abs() < 1e-2, "{power}: {norm_squared} {wanted}");
            assert!(x.iter().zip(codes).all(|(x, c)| (x - scale * f32::from(c)).abs() <= 0.51 * scale));
        }
        assert_eq!(Kernels::best().quantize(&[0.0; 64], 0.0, &mut [1; 64]), (0.0, 0.0));
        assert_eq!(Kernels::best().quantize(&[1e-40; 64], 1e-40, &mut [1; 64]), (0.0, 0.0));
    }

    #[test]
    fn extreme_codes_do_not_overflow() {
        let low = vec![-128i8; 4032];
        for k in others() {
            assert_eq!(k.dot_i8(&low, &low), 4032 * 128 * 128, "{k:?}");
            let mut out = [0];
            k.matrix_i8(&low, &low, 4032, &mut out);
            assert_eq!(out[0], 4032 * 128 * 128, "{k:?}");
            k.dots_i8(&low, &low, &[0], &mut out);
            assert_eq!(out[0], 4032 * 128 * 128, "{k:?}");
            assert_eq!(k.fastscan(&[255; 4096], &[0x5A; 4096]), [65_280; 32], "{k:?}");
        }
    }
}
