//! The sign code of a neighbor relative to its node, and the factors that turn it into an estimate.
//!
//! With node `n`, neighbor `y`, residual `r = y - n` (all quantized, rotated, less the center), signs `s`
//! of `r` over the coded dimensions, and any `v`: `<v, r>` is estimated by `g <v, s>` with
//! `g = |r|^2 / <r, s>`. That is exact for the part of `v` along `r` and has mean zero for the rest, as the
//! rotation is random (RaBitQ, Gao and Long 2024, here for a residual as in SymphonyQG and with `<v, s>`
//! over the leading dimensions only). Taking `v = q - n` keeps the error proportional to `|q - n|`:
//!
//! ```text
//! |q - y|^2 = |q - n|^2 + |r|^2 - 2 <q - n, r>  ~  |q - n|^2 + (|r|^2 + 2 g <n, s>) - 2 g <q, s>
//! -<q, y>   = -<q, n> - <n, r> - <q - n, r>     ~  -<q, n> + (g <n, s> - <n, r>) - g <q, s>
//! ```
//!
//! The parentheses are the factor `add`, what multiplies `<q, s>` is the factor `scale`. For inner product
//! `add` also carries `-<c, r>`, as scores there include the center `c`.

use crate::arch::{Kernels, ResidualSums, Scaled};
use crate::layout::NodeId;
use crate::layout::entry::Entry;
use crate::layout::node::Edge;
use crate::metric::Metric;

/// The factors of an edge from its sums.
fn factors(metric: Metric, sums: &ResidualSums) -> (f32, f32) {
    let g = if sums.magnitude > 0.0 { sums.norm_squared / sums.magnitude } else { 0.0 };
    let signs = g * sums.base_signs;
    match metric {
        Metric::Cosine | Metric::L2 => (sums.norm_squared + 2.0 * signs, -2.0 * g),
        Metric::InnerProduct => (signs - sums.base_dot - sums.center_dot, -g),
    }
}

/// Encodes the edge from `node` to `neighbor`; `bits` takes one bit per coded dimension.
pub fn edge(
    kernels: Kernels,
    metric: Metric,
    node: Scaled,
    neighbor: Scaled,
    id: NodeId,
    center: &[f32],
    bits: &mut [u8],
) -> Edge {
    let sums = kernels.residual(node, neighbor, center, bits);
    let (add, scale) = factors(metric, &sums);
    Edge { id, add, scale, distance_squared: sums.norm_squared }
}

/// Encodes a row of the entry table: an edge from the center.
pub fn entry(
    kernels: Kernels,
    metric: Metric,
    vector: Scaled,
    id: NodeId,
    center: &[f32],
    bits: &mut [u8],
) -> Entry {
    let nothing = vec![0i8; vector.codes.len()];
    let sums = kernels.residual(Scaled { codes: &nothing, scale: 0.0 }, vector, center, bits);
    let (add, scale) = factors(metric, &sums);
    Entry { id, add, scale }
}

/// Estimated squared distances between `x` and the neighbors of a node, given the table of `x - node`
/// and the edges' stored squared distances and factors.
#[must_use]
pub fn squared_distance(metric: Metric, to_node_squared: f32, edge: &Edge, sign_sum: f32) -> f32 {
    let twice_g = match metric {
        Metric::Cosine | Metric::L2 => edge.scale,
        Metric::InnerProduct => 2.0 * edge.scale,
    };
    (to_node_squared + edge.distance_squared + twice_g * sign_sum).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::super::fastscan::{Table, set_code};
    use super::super::{Rotation, int8};
    use super::*;
    use crate::random::SplitMix64;

    /// Rotated quantized vectors round a common offset, as embeddings are.
    fn vectors(n: usize, dim: usize, seed: u64) -> Vec<(Vec<i8>, f32)> {
        let rotation = Rotation::new(dim, seed);
        let mut random = SplitMix64::new(seed);
        let mut uniform = || (random.next_u64() >> 40) as f32 / 16_777_216.0 - 0.5;
        (0..n)
            .map(|_| {
                let x: Vec<f32> = (0..dim).map(|i| uniform() + 0.3 * (i as f32).sin()).collect();
                let (mut y, mut codes) = (vec![0.0; dim], vec![0; dim]);
                rotation.apply(&x, &mut y);
                let q = int8::quantize(&y, &mut codes);
                (codes, q.scale)
            })
            .collect()
    }

    /// Errors of all estimates of 40 queries from one node, relative to `|q - n| |r|`: sum, sum of squares,
    /// sum of squared sizes.
    fn errors(metric: Metric, dim: usize, code_dim: usize, seed: u64) -> [f64; 3] {
        let kernels = Kernels::best();
        let rows = vectors(33 + 40, dim, seed);
        let scaled = |i: usize| Scaled { codes: &rows[i].0, scale: rows[i].1 };
        let float = |i: usize| -> Vec<f32> { rows[i].0.iter().map(|&c| f32::from(c) * rows[i].1).collect() };
        let center: Vec<f32> = (0..dim).map(|i| 0.1 * (i as f32).cos()).collect();
        let dot = |a: &[f32], b: &[f32]| -> f32 { a.iter().zip(b).map(|(x, y)| x * y).sum() };
        let score = |q: &[f32], x: &[f32]| match metric {
            Metric::InnerProduct => -dot(q, x) - dot(&center, x),
            Metric::L2 | Metric::Cosine => q.iter().zip(x).map(|(a, b)| (a - b) * (a - b)).sum(),
        };
        let (mut block, mut bits) = (vec![0; 4 * code_dim], vec![0; code_dim / 8]);
        let edges: Vec<Edge> = (0..32)
            .map(|i| {
                let id = NodeId(u32::try_from(i).unwrap());
                let e = edge(kernels, metric, scaled(0), scaled(i + 1), id, &center, &mut bits);
                set_code(&mut block, i, &bits);
                e
            })
            .collect();
        let mut sums = [0.0; 3];
        for q in (33..73).map(float) {
            let mut table = Table::new(code_dim);
            table.fill(&q);
            let signs = table.sums(kernels, &block);
            let v: Vec<f32> = q.iter().zip(float(0)).map(|(a, b)| a - b).collect();
            for (i, e) in edges.iter().enumerate() {
                let estimate = score(&q, &float(0)) + e.add + e.scale * signs[i];
                let error = f64::from(estimate - score(&q, &float(i + 1)));
                let size = f64::from(dot(&v, &v).sqrt() * e.distance_squared.sqrt());
                sums = [sums[0] + error, sums[1] + error * error, sums[2] + size * size];
            }
        }
        sums
    }

    #[test]
    fn estimates_are_close_and_unbiased() {
        for (dim, code_dim) in [(512, 512), (512, 256), (832, 384), (128, 104), (256, 184)] {
            for (metric, spread) in [(Metric::L2, 1.5), (Metric::InnerProduct, 0.75)] {
                let runs: Vec<[f64; 3]> = (0..16).map(|seed| errors(metric, dim, code_dim, seed)).collect();
                let total = |i: usize| runs.iter().map(|r| r[i]).sum::<f64>();
                let count = 16.0 * 32.0 * 40.0;
                let (deviation, mean) =
                    ((total(1) / total(2)).sqrt(), total(0) / count / (total(2) / count).sqrt());
                // Theory: sqrt(pi / 2 - 1) = 0.75 over the root of the code length, twice that for L2.
                let theory = spread / f64::from(u16::try_from(code_dim).unwrap()).sqrt();
                assert!(
                    deviation < 1.3 * theory,
                    "{metric:?} {dim}/{code_dim}: {deviation}, theory {theory}"
                );
                assert!(
                    mean.abs() < 0.3 * theory,
                    "{metric:?} {dim}/{code_dim}: mean {mean}, theory {theory}"
                );
            }
        }
    }

    #[test]
    fn equal_vectors_have_a_residual_of_zero() {
        let rows = vectors(1, 64, 1);
        let x = Scaled { codes: &rows[0].0, scale: rows[0].1 };
        let e = edge(Kernels::best(), Metric::L2, x, x, NodeId(1), &[0.0; 64], &mut [0; 8]);
        assert_eq!((e.add, e.scale, e.distance_squared), (0.0, 0.0, 0.0));
    }
}
