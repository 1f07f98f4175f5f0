//! The orthogonal basis of an index: a seeded rotation, then reflections that bring the leading directions of the
//! data to the front.
//!
//! A Householder reflection is orthogonal whatever its vector is, so rounding what is stored costs nothing but a hair
//! of the directions' accuracy: norms and inner products stay.

use super::Rotation;
use crate::arch::Kernels;

/// The basis of an index.
#[derive(Clone, Debug)]
pub struct Basis {
    rotation: Rotation,
    kernels: Kernels,
    dim: usize,
    /// The vectors of the reflections, `[reflections, dim]`.
    reflectors: Vec<f32>,
    /// `2 / |v|^2` of each; 0 for a vector of zeros.
    factors: Vec<f32>,
    /// Elements of each before this are zeros: a multiple of 64. Reflection j of a build leaves the first j elements alone.
    starts: Vec<usize>,
}

impl Basis {
    /// The rotation of `padded_dim` dimensions that a seed stands for, followed by reflections, `[n, padded_dim]`, in
    /// this order. No element of these is larger than 1e18.
    #[must_use]
    pub fn new(padded_dim: usize, seed: u64, reflectors: Vec<f32>) -> Self {
        let kernels = Kernels::best();
        let factor = |v: &[f32]| {
            let squared: f64 = v.iter().map(|&x| f64::from(x).powi(2)).sum();
            #[allow(clippy::cast_possible_truncation, reason = "rounded")]
            if squared > 0.0 { (2.0 / squared) as f32 } else { 0.0 }
        };
        let vectors = || reflectors.chunks_exact(padded_dim);
        let factors = vectors().map(factor).collect();
        let zeros = |v: &[f32]| v.iter().take_while(|&&x| x == 0.0).count();
        let starts = vectors().map(|v| zeros(v) / 64 * 64).collect();
        Self {
            rotation: Rotation::new(padded_dim, seed),
            kernels,
            dim: padded_dim,
            reflectors,
            factors,
            starts,
        }
    }

    /// The vectors of the reflections, one after another.
    #[must_use]
    pub fn reflectors(&self) -> &[f32] {
        &self.reflectors
    }

    /// How many reflections there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.factors.len()
    }

    /// Writes the coordinates of `vector`, `[dim]`, into `out`, `[padded_dim]`; missing elements are zero.
    pub fn apply(&self, vector: &[f32], out: &mut [f32]) {
        self.rotation.apply(vector, out);
        self.reflect(out);
    }

    /// Undoes [`Basis::reflect`]: each reflection undoes itself.
    pub fn reflect_back(&self, out: &mut [f32]) {
        (0..self.count()).rev().for_each(|i| self.reflect_by(i, out));
    }

    /// Takes a vector that is rotated already into the basis.
    pub fn reflect(&self, out: &mut [f32]) {
        (0..self.count()).for_each(|i| self.reflect_by(i, out));
    }

    fn reflect_by(&self, i: usize, out: &mut [f32]) {
        let start = self.starts[i];
        let (v, out) = (&self.reflectors[i * self.dim + start..(i + 1) * self.dim], &mut out[start..]);
        let dot = self.kernels.dot_f32(v, out);
        self.kernels.add_scaled(out, -self.factors[i] * dot, v);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::bf16;
    use crate::random::SplitMix64;

    #[test]
    fn reflections_keep_inner_products_however_they_are_rounded() {
        let mut random = SplitMix64::new(3);
        let mut uniform = || (random.next_u64() >> 40) as f32 / 16_777_216.0 - 0.5;
        for (dim, count) in [(64, 1), (192, 32), (512, 96), (1536, 256)] {
            let rounded = |x| bf16::to_f32(bf16::nearest(x));
            let mut reflectors: Vec<f32> = (0..count * dim).map(|_| rounded(uniform())).collect();
            reflectors[..dim].fill(0.0);
            let basis = Basis::new(dim, 7, reflectors);
            let (a, b): (Vec<f32>, Vec<f32>) = (0..dim).map(|_| (uniform(), uniform())).unzip();
            let (mut x, mut y) = (vec![0.0; dim], vec![0.0; dim]);
            basis.apply(&a, &mut x);
            basis.apply(&b, &mut y);
            let dot = |a: &[f32], b: &[f32]| -> f64 {
                a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
            };
            let size = (dot(&a, &a) * dot(&b, &b)).sqrt();
            assert!((dot(&x, &y) - dot(&a, &b)).abs() <= 1e-5 * size, "{dim} dimensions");
            let mut rotated = vec![0.0; dim];
            Rotation::new(dim, 7).apply(&a, &mut rotated);
            basis.reflect_back(&mut x);
            assert!(x.iter().zip(&rotated).all(|(x, y)| (x - y).abs() < 1e-4), "{dim} dimensions");
        }
    }

    #[test]
    fn frozen() {
        let reflectors = (0..3 * 64).map(|i| ((i * 37 % 64) as f32 - 32.0) / 64.0).collect();
        let x: Vec<f32> = (0..64).map(|i| i as f32).collect();
        let mut out = vec![0.0; 64];
        Basis::new(64, 1, reflectors).apply(&x, &mut out);
        let got: [i32; 4] = std::array::from_fn(|i| (out[i * 16] * 1000.0).round() as i32);
        assert!(got.iter().zip(FROZEN).all(|(g, w)| (g - w).abs() <= 2), "{got:?}");
    }

    /// Elements 0, 16, 32 and 48 of the ramp, in thousandths, from an independent implementation.
    const FROZEN: [i32; 4] = [-17747, -41530, -30438, -40220];
}
