//! The code of a neighbor relative to its node, and the factors that turn it into an estimate.
//!
//! With node `n`, neighbor `y`, residual `r = y - n` (as both are stored), code `l` of `r` over the coded dimensions, and any
//! `v`: `<v, r>` is estimated by `g <v, l>` with `g = |r|^2 / <r, l>`. That is exact for the part of `v` along `r` and has mean
//! zero for the rest, as the coded dimensions are rotated at random (RaBitQ, Gao and Long 2024, here for a residual as in
//! SymphonyQG and with `<v, l>` over the leading dimensions only; `l` has one or two bits a dimension). Taking
//! `v = q - n` keeps the error proportional to `|q - n|`. With the leader `k` that the node is relative to:
//!
//! ```text
//! |q - y|^2 = |q - n|^2 + |r|^2 - 2 <q - n, r>  ~  |q - n|^2 + (|r|^2 + 2 g <n - k, l>) - 2 g <q - k, l>
//! -<q, y>   = -<q, n> - <n, r> - <q - n, r>     ~  -<q, n> + (g <n - k, l> - <n, r>) - g <q - k, l>
//! ```
//!
//! The parentheses are the factor `add`, what multiplies `<q - k, l>` is the factor `scale`. Inner products are of directions, and are
//! multiplied by norms at last. In format 1 they were of whole vectors, and `add` also carries `-<c, r>`, as scores there include the
//! center `c`.

use crate::arch::ResidualSums;
use crate::layout::NodeId;
use crate::layout::entry::Entry;
use crate::layout::node::Edge;
use crate::metric::Metric;
use crate::space::Space;

use super::Stored;

/// Encodes edges of one node.
pub struct Encoder<'a> {
    space: &'a Space,
    leader: u16,
    /// The node, less its leader.
    node: Vec<f32>,
    /// Center and leader together; asked for by inner product alone.
    origin: Vec<f32>,
    neighbor: Vec<f32>,
}

impl<'a> Encoder<'a> {
    /// For edges of a node.
    #[must_use]
    pub fn new(space: &'a Space, node: Stored) -> Self {
        let mut encoder = Self::of_leader(space, node.reference);
        space.decode(node, node.reference, &mut encoder.node);
        encoder
    }

    /// For entries that are relative to a leader.
    fn of_leader(space: &'a Space, leader: u16) -> Self {
        let zeros = vec![0.0; space.geometry.padded_dim()];
        let mut origin = space.center.clone();
        if leader != 0 {
            space.kernels.add_scaled(&mut origin, 1.0, space.leaders.vector(leader));
        }
        Self { space, leader, node: zeros.clone(), origin, neighbor: zeros }
    }

    /// Encodes the edge to a neighbor; `bits` takes the code.
    pub fn edge(&mut self, neighbor: Stored, id: NodeId, bits: &mut [u8]) -> Edge {
        let sums = self.sums(neighbor, bits);
        let (add, scale) = factors(self.space.metric, &sums);
        let sketches = self.space.columns.sketches(neighbor.keys);
        let weight = self.space.weight(neighbor);
        Edge { id, add, scale, distance_squared: sums.norm_squared, weight, sketches }
    }

    fn sums(&mut self, neighbor: Stored, bits: &mut [u8]) -> ResidualSums {
        let Self { space, leader, node, origin, neighbor: decoded } = self;
        space.decode(neighbor, *leader, decoded);
        space.kernels.residual(node, decoded, origin, space.geometry.planes(), bits)
    }
}

/// The factors of an edge from its sums.
fn factors(metric: Metric, sums: &ResidualSums) -> (f32, f32) {
    let g = if sums.magnitude > 0.0 { sums.norm_squared / sums.magnitude } else { 0.0 };
    let code = g * sums.base_code;
    match metric {
        Metric::Cosine | Metric::L2 => (sums.norm_squared + 2.0 * code, -2.0 * g),
        Metric::InnerProduct => (code - sums.base_dot - sums.center_dot, -g),
    }
}

/// Encodes a row of the entry table: an edge from the leader that the vector is relative to.
pub fn entry(space: &Space, vector: Stored, id: NodeId, bits: &mut [u8]) -> Entry {
    let leader = vector.reference;
    let sums = Encoder::of_leader(space, leader).sums(vector, bits);
    let (add, scale) = factors(space.metric, &sums);
    let sketches = space.columns.sketches(vector.keys);
    Entry { id, add, scale, leader, weight: space.weight(vector), sketches }
}

/// Estimated squared distances between `x` and the neighbors of a node, given the table of `x - node`
/// and the edges' stored squared distances and factors.
#[must_use]
pub fn squared_distance(metric: Metric, to_node_squared: f32, edge: &Edge, code_sum: f32) -> f32 {
    let twice_g = match metric {
        Metric::Cosine | Metric::L2 => edge.scale,
        Metric::InnerProduct => 2.0 * edge.scale,
    };
    (to_node_squared + edge.distance_squared + twice_g * code_sum).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Geometry;
    use crate::layout::geometry::Stated;
    use crate::layout::meta::Meta;
    use crate::layout::node::{self, Header, NodeMut};
    use crate::quantize::fastscan::get_code;
    use crate::random::SplitMix64;
    use crate::space::{Quantized, Query};

    /// A space with two leaders beside the center.
    fn space(metric: Metric, dim: u16, code_dim: u16, planes: u8, seed: u64) -> Space {
        let (lead_dim, slots, leaders) = (dim, 1, 2);
        let stated = Stated {
            format: 2,
            dim,
            padded_dim: dim,
            lead_dim,
            code_dim,
            planes,
            slots,
            leaders,
            epoch: 0,
            columns: 0,
            signatures: 0,
            is_weighted: metric == Metric::InnerProduct,
        };
        let geometry = Geometry::checked(&stated).unwrap();
        let middle = if geometry.is_weighted() { 0.0 } else { 0.1 };
        let center: Vec<f32> = (0..dim).map(|i| middle * f32::from(i).cos()).collect();
        let leaders: Vec<f32> = (0..2 * dim).map(|i| 0.3 * f32::from(i).sin()).collect();
        Space::new(&Meta::new(metric, geometry, seed, &center), Vec::new(), &leaders)
    }

    /// Vectors round a common offset, as embeddings are.
    fn vectors(n: usize, dim: u16, seed: u64) -> Vec<Vec<f32>> {
        let mut random = SplitMix64::new(seed);
        let mut uniform = || (random.next_u64() >> 40) as f32 / 16_777_216.0 - 0.5;
        (0..n).map(|_| (0..dim).map(|i| uniform() + 0.3 * f32::from(i).sin()).collect()).collect()
    }

    /// Errors of all estimates of 40 queries from one node, relative to `|q - n| |r|`: sum, sum of squares,
    /// sum of squared sizes.
    fn errors(metric: Metric, dim: u16, code_dim: u16, planes: u8, seed: u64) -> [f64; 3] {
        let space = space(metric, dim, code_dim, planes, seed);
        let all = vectors(33 + 40, dim, seed);
        let rows: Vec<Quantized> = all[..33].iter().map(|x| space.quantize(x).unwrap().unwrap()).collect();
        let g = space.geometry();
        let (mut page, mut bits) = (node::empty_page(g), vec![0; g.code_bytes()]);
        let mut node = NodeMut::open(&mut page, g, 0).unwrap();
        let Quantized { codes, lead, trail, reference, bias, .. } = &rows[0];
        let (lead, trail, reference, bias) = (*lead, *trail, *reference, *bias);
        node.set_header(&Header { degree: 32, lead, trail, reference, bias, ..Header::FREE });
        node.set_vector(codes);
        let mut encoder = Encoder::new(&space, rows[0].stored());
        let edges: Vec<Edge> = (0..32)
            .map(|i| {
                let e = encoder.edge(rows[i + 1].stored(), NodeId(u32::try_from(i).unwrap()), &mut bits);
                node.set_edge(i, &e, &bits);
                assert_eq!(get_code(node.as_node().codes(), i), bits);
                e
            })
            .collect();
        let middle = space.decoded(rows[0].stored());
        let mut sums = [0.0; 3];
        for q in &all[33..] {
            let query = Query::new(&space, q).unwrap();
            let (score, estimates) = query.estimates(&space, &node.as_node());
            assert_eq!(score, query.score(&space, rows[0].stored()));
            let distance = space.between(query.turned(), &middle).sqrt();
            for ((estimate, row), edge) in estimates.iter().zip(&rows[1..]).zip(&edges) {
                let error =
                    f64::from((estimate - query.score(&space, row.stored())) / space.weight(row.stored()));
                let size = f64::from(distance * edge.distance_squared.sqrt());
                sums = [sums[0] + error, sums[1] + error * error, sums[2] + size * size];
            }
        }
        sums
    }

    #[test]
    fn estimates_are_close_and_unbiased() {
        for (dim, code_dim) in [(512, 512), (512, 256), (832, 384), (128, 104), (256, 184)] {
            for (metric, planes) in
                [(Metric::L2, 1), (Metric::InnerProduct, 1), (Metric::L2, 2), (Metric::InnerProduct, 2)]
            {
                let runs: Vec<[f64; 3]> =
                    (0..16).map(|seed| errors(metric, dim, code_dim, planes, seed)).collect();
                let total = |i: usize| runs.iter().map(|r| r[i]).sum::<f64>();
                let count = 16.0 * 32.0 * 40.0;
                let (deviation, mean) =
                    ((total(1) / total(2)).sqrt(), total(0) / count / (total(2) / count).sqrt());
                // See `geometry.rs`, with all directions alike; twice that for L2.
                let share = f64::from(code_dim) / f64::from(dim);
                let lost = if planes == 1 { 0.571 } else { 0.133 };
                let variance = (1.0 - share + lost) / f64::from(code_dim);
                let theory = variance.sqrt() * if metric == Metric::L2 { 2.0 } else { 1.0 };
                let case = format!("{metric:?} {dim}/{code_dim} x {planes}: theory {theory}");
                assert!(deviation < 1.3 * theory, "{case}, deviation {deviation}");
                assert!(mean.abs() < 0.3 * theory, "{case}, mean {mean}");
            }
        }
    }

    #[test]
    fn equal_vectors_have_a_residual_of_zero() {
        let space = space(Metric::L2, 64, 64, 2, 1);
        let x = space.quantize(&vectors(1, 64, 1)[0]).unwrap().unwrap();
        let e = Encoder::new(&space, x.stored()).edge(x.stored(), NodeId(1), &mut [0; 16]);
        assert_eq!((e.add, e.scale, e.distance_squared), (0.0, 0.0, 0.0));
    }
}
