//! A fixed random rotation, so that every dimension carries its share of every vector.
//!
//! Rounds of random signs and a Hadamard transform. Where the padded dimension is no power of two, the
//! transform covers the largest power of two, alternately at the front and at the back, and a butterfly of
//! the two halves follows (the Kac walk of the RaBitQ library). Norms and inner products are kept.
//!
//! Frozen: vectors on disk are rotated by it. The known-answer test pins it.

use crate::random::SplitMix64;

/// The rotation of an index.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// ±1, `[rounds, dim]`.
    signs: Vec<f32>,
    dim: usize,
    block: usize,
}

impl Rotation {
    /// The rotation of `padded_dim`, a multiple of 64, dimensions that a seed stands for.
    #[must_use]
    pub fn new(padded_dim: usize, seed: u64) -> Self {
        assert!(padded_dim > 0 && padded_dim.is_multiple_of(64));
        let block = 1 << padded_dim.ilog2();
        let rounds = if block == padded_dim { 2 } else { 4 };
        let mut random = SplitMix64::new(seed);
        let words: Vec<u64> = (0..rounds * padded_dim / 64).map(|_| random.next_u64()).collect();
        let sign = |i: usize| if words[i / 64] >> (i % 64) & 1 == 1 { -1.0 } else { 1.0 };
        Self { signs: (0..rounds * padded_dim).map(sign).collect(), dim: padded_dim, block }
    }

    /// Rotates `vector`, `[dim]`, into `out`, `[padded_dim]`; missing elements are zero.
    pub fn apply(&self, vector: &[f32], out: &mut [f32]) {
        assert!(vector.len() <= self.dim && out.len() == self.dim);
        out[..vector.len()].copy_from_slice(vector);
        out[vector.len()..].fill(0.0);
        for (round, signs) in self.signs.chunks_exact(self.dim).enumerate() {
            for (x, sign) in out.iter_mut().zip(signs) {
                *x *= sign;
            }
            let start = if round % 2 == 0 { 0 } else { self.dim - self.block };
            hadamard(&mut out[start..start + self.block]);
            if self.block != self.dim {
                let (front, back) = out.split_at_mut(self.dim / 2);
                for (x, y) in front.iter_mut().zip(back) {
                    let (sum, difference) = (*x + *y, *x - *y);
                    *x = sum * std::f32::consts::FRAC_1_SQRT_2;
                    *y = difference * std::f32::consts::FRAC_1_SQRT_2;
                }
            }
        }
    }
}

/// The normalized Walsh-Hadamard transform in place; the length is a power of two, at least 64.
fn hadamard(x: &mut [f32]) {
    let mut half = 1;
    // The first steps work inside chunks of 16, where the compiler keeps everything in registers.
    for chunk in x.chunks_exact_mut(16) {
        let mut v: [f32; 16] = (&*chunk).try_into().expect("16 elements");
        for step in [1, 2, 4, 8] {
            let mut w = v;
            for i in 0..16 {
                w[i] = if i & step == 0 { v[i] + v[i | step] } else { v[i & !step] - v[i] };
            }
            v = w;
        }
        chunk.copy_from_slice(&v);
        half = 16;
    }
    while half < x.len() {
        for pair in x.chunks_exact_mut(2 * half) {
            let (a, b) = pair.split_at_mut(half);
            for (a, b) in a.iter_mut().zip(b) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
    let scale = 1.0 / (x.len() as f32).sqrt();
    for value in x {
        *value *= scale;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dot(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(x, y)| x * y).sum()
    }

    #[test]
    fn keeps_inner_products() {
        for dim in [1usize, 64, 100, 512, 784, 1536, 4000] {
            let padded = dim.next_multiple_of(64);
            let rotation = Rotation::new(padded, 99);
            let (a, b): (Vec<f32>, Vec<f32>) =
                (0..dim).map(|i| ((i as f32 * 0.7).sin(), (i as f32 * 0.3 + 1.0).cos())).unzip();
            let (mut x, mut y) = (vec![0.0; padded], vec![0.0; padded]);
            rotation.apply(&a, &mut x);
            rotation.apply(&b, &mut y);
            let size = (dot(&a, &a) * dot(&b, &b)).sqrt();
            assert!((dot(&x, &y) - dot(&a, &b)).abs() <= 1e-5 * size, "{dim} dimensions");
        }
    }

    #[test]
    fn spreads_a_single_element() {
        for dim in [64usize, 512, 832, 960, 1536, 4032] {
            let rotation = Rotation::new(dim, 7);
            for hot in [0, dim / 2, dim - 1] {
                let mut x = vec![0.0; dim];
                x[hot] = 1.0;
                let mut out = vec![0.0; dim];
                rotation.apply(&x, &mut out);
                let largest = out.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                assert!(largest <= 9.0 / (dim as f32).sqrt(), "{dim} dimensions, element {hot}: {largest}");
                let front = dot(&out[..dim / 2], &out[..dim / 2]);
                assert!((0.3..0.7).contains(&front), "{dim} dimensions, element {hot}: {front}");
            }
        }
    }

    #[test]
    fn frozen() {
        for (dim, wanted) in [(64, FROZEN_64), (192, FROZEN_192)] {
            let x: Vec<f32> = (0..dim).map(|i| i as f32).collect();
            let mut out = vec![0.0; dim];
            Rotation::new(dim, 1).apply(&x, &mut out);
            let got: [i32; 4] = std::array::from_fn(|i| (out[i * (dim / 4)] * 1000.0).round() as i32);
            let near = got.iter().zip(wanted).all(|(g, w)| (g - w).abs() <= 2);
            assert!(near, "{dim} dimensions: {got:?}, wanted {wanted:?}");
        }
    }

    /// Elements 0, 1/4, 1/2 and 3/4 of the rotated ramp, in thousandths, from an independent
    /// implementation of the description above.
    const FROZEN_64: [i32; 4] = [-38812, -52062, -30438, -29688];
    const FROZEN_192: [i32; 4] = [-119325, 48422, 133142, 57765];
}
