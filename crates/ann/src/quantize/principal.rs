//! The leading principal directions of a sample, and the reflections that bring them to the front of the basis.
//!
//! Directions come from a subspace iteration with a random start (Halko, Martinsson, Tropp 2011) and a Rayleigh-Ritz step:
//! products of matrices, and eigenvectors of one small symmetric matrix.

use crate::arch::Kernels;
use crate::layout::bf16;
use crate::random::SplitMix64;
use nalgebra::{DMatrix, DVectorView, SymmetricEigen};

/// Directions beyond those wanted, which make those wanted more accurate.
const SPARE: usize = 16;
/// Rounds of the iteration.
const ROUNDS: usize = 3;
/// Rows of a sample for each direction that is taken from it.
pub const ROWS_PER_DIRECTION: usize = 4;

/// How the variance of data is spread over directions.
#[derive(Clone, Debug)]
pub struct Spectrum {
    /// Variances along the leading directions, descending.
    pub leading: Vec<f64>,
    /// Variance along all directions.
    pub total: f64,
    /// Directions there are.
    pub dim: usize,
}

impl Spectrum {
    /// Share of the variance in the first `count` directions, and the sum of the squared shares of these and of the others.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "a few thousand")]
    pub fn shares(&self, count: usize) -> (f64, f64, f64) {
        let total = self.total.max(f64::MIN_POSITIVE);
        let known = self.leading.len();
        // After what is known, the rest is taken to be spread evenly.
        let rest = (1.0 - self.leading.iter().sum::<f64>() / total).max(0.0);
        let unknown = rest / (self.dim - known).max(1) as f64;
        let share = |i: usize| self.leading.get(i).map_or(unknown, |x| x / total);
        let (mut lead, mut squares, mut trailing) = (0.0, 0.0, 0.0);
        for i in 0..self.dim {
            let share = share(i);
            if i < count {
                lead += share;
                squares += share * share;
            } else {
                trailing += share * share;
            }
        }
        (lead, squares, trailing)
    }
}

/// Leading directions of a sample.
pub struct Directions {
    /// `[dim, count]`: columns of unit length at right angles, of falling variance.
    columns: DMatrix<f32>,
    /// The variances.
    pub spectrum: Spectrum,
}

/// Up to `count` leading directions of centered vectors, `[n, dim]`, as many as the sample is large enough for.
#[must_use]
pub fn directions(sample: &[f32], dim: usize, count: usize, random: &mut SplitMix64) -> Directions {
    let rows = sample.len() / dim;
    #[allow(clippy::cast_precision_loss, reason = "a sample")]
    let n = rows.max(1) as f64;
    let total = sample.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / n;
    let wanted = count.min(dim).min(rows / ROWS_PER_DIRECTION);
    // Column-major: the sample's rows are columns here. About unit length, so that no square leaves f32.
    let mut x = DMatrix::from_column_slice(dim, rows, &sample[..rows * dim]);
    let length = total.sqrt();
    #[allow(clippy::cast_possible_truncation, reason = "elements of vectors of about unit length")]
    x.apply(|x| *x = (f64::from(*x) / length) as f32);
    let width = (wanted + SPARE).min(dim).min(rows);
    if wanted == 0 || length == 0.0 || !length.is_finite() {
        let spectrum = Spectrum { leading: Vec::new(), total, dim };
        return Directions { columns: DMatrix::zeros(dim, 0), spectrum };
    }
    let mut basis = DMatrix::from_fn(dim, width, |_, _| normal(random));
    for _ in 0..ROUNDS {
        let projected = x.tr_mul(&basis);
        basis = (&x * projected).qr().q();
    }
    let projected = x.tr_mul(&basis);
    let small = projected.tr_mul(&projected).map(f64::from) / n;
    let eigen = SymmetricEigen::new(small);
    let mut order: Vec<usize> = (0..width).collect();
    order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]));
    order.truncate(wanted);
    #[allow(clippy::cast_possible_truncation, reason = "elements of unit vectors")]
    let chosen = DMatrix::from_fn(width, wanted, |i, j| eigen.eigenvectors[(i, order[j])] as f32);
    let leading = order.iter().map(|&i| eigen.eigenvalues[i].max(0.0) * total).collect();
    Directions { columns: basis * chosen, spectrum: Spectrum { leading, total, dim } }
}

impl Directions {
    /// Reflections after which the first `count` coordinates are a random rotation of those along the first `count`
    /// directions: `[count, dim]`, elements rounded to bfloat16.
    #[must_use]
    pub fn reflectors(&self, count: usize, random: &mut SplitMix64) -> Vec<f32> {
        let (dim, count) = (self.columns.nrows(), count.min(self.columns.ncols()));
        let kernels = Kernels::best();
        // A random basis of their span: Gram and Schmidt's vectors of it point anywhere with the same probability.
        let mixing = DMatrix::from_fn(count, count, |_, _| normal(random));
        let mut span: DMatrix<f32> = self.columns.columns(0, count) * mixing;
        let mut reflectors = vec![0.0; count * dim];
        for j in 0..count {
            // Householder: the reflection that brings what is left of vector j onto axis j. Those before it
            // are applied already, as they were rounded.
            let v = &mut reflectors[j * dim..(j + 1) * dim];
            let column: DVectorView<f32> = span.column(j);
            v[j..].copy_from_slice(&column.as_slice()[j..]);
            let length = kernels.dot_f32(v, v).sqrt();
            v[j] += length.copysign(v[j]);
            v.iter_mut().for_each(|x| *x = bf16::to_f32(bf16::nearest(*x)));
            let squared = kernels.dot_f32(v, v);
            if squared == 0.0 {
                continue;
            }
            for later in span.as_mut_slice()[(j + 1) * dim..].chunks_exact_mut(dim) {
                let dot = kernels.dot_f32(v, later);
                kernels.add_scaled(later, -2.0 / squared * dot, v);
            }
        }
        reflectors
    }
}

/// A normal deviate (Box and Muller 1958).
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "24 bits")]
fn normal(random: &mut SplitMix64) -> f32 {
    let mut uniform = || ((random.next_u64() >> 40) as f64 + 0.5) / 16_777_216.0;
    let (u, v) = (uniform(), uniform());
    ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
}

#[cfg(test)]
mod tests {
    use super::super::Basis;
    use super::*;

    /// Vectors that vary in a few random directions, and a little everywhere.
    fn sample(rows: usize, dim: usize, rank: usize, noise: f32, random: &mut SplitMix64) -> Vec<f32> {
        let axes: Vec<f32> = (0..rank * dim).map(|_| normal(random) / (dim as f32).sqrt()).collect();
        let mut all = Vec::with_capacity(rows * dim);
        for _ in 0..rows {
            let mut x: Vec<f32> = (0..dim).map(|_| noise * normal(random) / (dim as f32).sqrt()).collect();
            for axis in axes.chunks_exact(dim) {
                let weight = normal(random) / (rank as f32).sqrt();
                x.iter_mut().zip(axis).for_each(|(x, a)| *x += weight * a);
            }
            all.extend(x);
        }
        all
    }

    #[test]
    fn the_front_of_the_basis_holds_the_variance() {
        for (dim, rank, seed) in [(64, 5, 1), (192, 40, 2), (512, 60, 3), (1024, 90, 4)] {
            let mut random = SplitMix64::new(seed);
            let rotation = Basis::new(dim, seed, Vec::new());
            let rotated: Vec<f32> = sample(1500, dim, rank, 0.1, &mut random)
                .chunks_exact(dim)
                .flat_map(|x| {
                    let mut out = vec![0.0; dim];
                    rotation.apply(x, &mut out);
                    out
                })
                .collect();
            let found = directions(&rotated, dim, rank + 8, &mut random);
            let (share, _, _) = found.spectrum.shares(rank);
            assert!(share > 0.98, "{dim}: {share}");
            let basis = Basis::new(dim, seed, found.reflectors(rank, &mut random));
            let (mut front, mut all, mut each) = (0.0, 0.0, vec![0.0f64; rank]);
            let mut out = vec![0.0; dim];
            for x in rotated.chunks_exact(dim) {
                // Only the reflections: the sample is rotated already.
                out.copy_from_slice(x);
                basis.reflect(&mut out);
                let squares: Vec<f64> = out.iter().map(|&x| f64::from(x).powi(2)).collect();
                front += squares[..rank].iter().sum::<f64>();
                all += squares.iter().sum::<f64>();
                each.iter_mut().zip(&squares).for_each(|(sum, x)| *sum += x);
            }
            // Rounding the reflections moves a thousandth.
            assert!((front / all - share).abs() < 3e-3, "{dim}: {} {share}", front / all);
            // Mixed at random, each carries about the same.
            let mean = front / rank as f64;
            assert!(each.iter().all(|&x| x < 4.0 * mean), "{dim}");
        }
    }

    #[test]
    fn samples_without_variance_have_no_directions() {
        let mut random = SplitMix64::new(1);
        for sample in [vec![], vec![0.0; 64 * 100], vec![1.0; 64]] {
            let found = directions(&sample, 64, 20, &mut random);
            assert!(found.reflectors(20, &mut random).is_empty());
            assert_eq!(found.spectrum.shares(64).1, found.spectrum.shares(64).1, "no division by zero");
        }
        // More directions are wanted than there are.
        let line: Vec<f32> = (0..200).flat_map(|i| (0..64).map(move |d| (i * d) as f32)).collect();
        let found = directions(&line, 64, 40, &mut random);
        assert!(found.spectrum.shares(1).0 > 0.999);
        assert!(found.reflectors(40, &mut random).iter().all(|x| x.is_finite()));
    }
}
