//! Generated data sets, exact answers and built indexes for the tests and benches.
#![allow(dead_code, reason = "each test binary uses its part")]

use imgvec_ann::build::executor::Threads;
use imgvec_ann::build::{Builder, Parameters, Report};
use imgvec_ann::layout::{Geometry, HeapTid};
use imgvec_ann::random::SplitMix64;
use imgvec_ann::store::mem::MemStore;
use imgvec_ann::{Index, Metric};
use std::sync::atomic::AtomicBool;

/// Normal deviates from the frozen generator.
pub struct Normal(pub SplitMix64);

impl Normal {
    pub fn new(seed: u64) -> Self {
        Self(SplitMix64::new(seed))
    }

    pub fn uniform(&mut self) -> f32 {
        (self.0.next_u64() >> 40) as f32 / 16_777_216.0
    }

    /// Box-Muller, one of the pair.
    pub fn next(&mut self) -> f32 {
        let (u, v) = (self.uniform().max(1e-9), self.uniform());
        (-2.0 * u.ln()).sqrt() * (std::f32::consts::TAU * v).cos()
    }

    pub fn vector(&mut self, dim: usize, scale: f32) -> Vec<f32> {
        (0..dim).map(|_| scale * self.next()).collect()
    }
}

pub struct Data {
    pub name: String,
    pub dim: usize,
    pub rows: Vec<Vec<f32>>,
    pub queries: Vec<Vec<f32>>,
}

fn add(a: &mut [f32], b: &[f32], factor: f32) {
    for (x, y) in a.iter_mut().zip(b) {
        *x += factor * y;
    }
}

/// CLIP-like: tight low-rank clusters of power-law sizes round super-centers, and a common offset that
/// makes random pairs similar. `cross_modal` queries have another offset.
pub fn clustered(
    dim: usize,
    n: usize,
    queries: usize,
    clusters: usize,
    seed: u64,
    cross_modal: bool,
) -> Data {
    let mut r = Normal::new(seed);
    let unit = 1.0 / (dim as f32).sqrt();
    let offset = r.vector(dim, 1.1 * unit);
    let other = r.vector(dim, 1.1 * unit);
    let supers: Vec<Vec<f32>> = (0..clusters.div_ceil(20)).map(|_| r.vector(dim, 0.7 * unit)).collect();
    const RANK: usize = 24;
    let shared: Vec<Vec<Vec<f32>>> =
        supers.iter().map(|_| (0..RANK).map(|_| r.vector(dim, unit)).collect()).collect();
    let centers: Vec<(usize, Vec<f32>)> = (0..clusters)
        .map(|c| {
            let s = c % supers.len();
            let mut center = supers[s].clone();
            add(&mut center, &r.vector(dim, 0.5 * unit), 1.0);
            (s, center)
        })
        .collect();
    let mut one = |offset: &[f32]| {
        // Cluster k is drawn in proportion to about 1 / sqrt(k).
        let c = ((r.uniform().powi(2)) * clusters as f32) as usize % clusters;
        let (s, center) = &centers[c];
        let mut x = center.clone();
        add(&mut x, offset, 1.0);
        for axis in &shared[*s] {
            add(&mut x, axis, 0.35 / (RANK as f32).sqrt() * r.next());
        }
        add(&mut x, &r.vector(dim, 0.12 * unit), 1.0);
        x
    };
    let rows = (0..n).map(|_| one(&offset)).collect();
    let from = if cross_modal { &other } else { &offset };
    let queries = (0..queries).map(|_| one(from)).collect();
    let kind = if cross_modal { "clustered, cross-modal" } else { "clustered" };
    Data { name: format!("{kind} {n} x {dim}, {clusters} clusters"), dim, rows, queries }
}

/// A smooth manifold: a random network over `latent` normal numbers, with noise.
pub fn manifold(dim: usize, n: usize, queries: usize, latent: usize, seed: u64) -> Data {
    const HIDDEN: usize = 64;
    let mut r = Normal::new(seed);
    let w1: Vec<Vec<f32>> = (0..HIDDEN).map(|_| r.vector(latent, 1.0 / (latent as f32).sqrt())).collect();
    let w2: Vec<Vec<f32>> = (0..HIDDEN).map(|_| r.vector(dim, 1.0 / (HIDDEN as f32).sqrt())).collect();
    let mut one = || {
        let z = r.vector(latent, 1.0);
        let mut x = r.vector(dim, 0.05);
        for (a, b) in w1.iter().zip(&w2) {
            let h: f32 = a.iter().zip(&z).map(|(a, z)| a * z).sum();
            add(&mut x, b, (1.5 * h).tanh());
        }
        x
    };
    let rows = (0..n).map(|_| one()).collect();
    let queries = (0..queries).map(|_| one()).collect();
    Data { name: format!("manifold {n} x {dim}, {latent} latent"), dim, rows, queries }
}

/// Exact distance, smaller is nearer.
pub fn distance(metric: Metric, a: &[f32], b: &[f32]) -> f64 {
    // Sixteen partial sums of f32: exact to 1e-6, and fast enough for ground truth.
    let mut sums = [[0.0f32; 16]; 3];
    for (a, b) in a.chunks(16).zip(b.chunks(16)) {
        for (i, (x, y)) in a.iter().zip(b).enumerate() {
            sums[0][i] += x * y;
            sums[1][i] += x * x;
            sums[2][i] += y * y;
        }
    }
    let [ab, aa, bb] = sums.map(|s| s.iter().map(|&x| f64::from(x)).sum::<f64>());
    match metric {
        Metric::Cosine => 1.0 - (ab / (aa * bb).sqrt()).clamp(-1.0, 1.0),
        Metric::L2 => a.iter().zip(b).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>().sqrt(),
        Metric::InnerProduct => -ab,
    }
}

/// Row numbers of the `k` nearest, nearest first.
pub fn exact(metric: Metric, rows: &[Vec<f32>], query: &[f32], k: usize) -> Vec<usize> {
    let mut all: Vec<(f64, usize)> =
        rows.iter().enumerate().map(|(i, row)| (distance(metric, row, query), i)).collect();
    let k = k.min(all.len());
    if k > 0 && k < all.len() {
        all.select_nth_unstable_by(k - 1, |a, b| a.0.total_cmp(&b.0));
    }
    all.truncate(k);
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    all.into_iter().map(|(_, i)| i).collect()
}

/// Row number to heap tid: 100 rows per heap page.
pub fn tid(row: usize) -> HeapTid {
    HeapTid { block: (row / 100) as u32, offset: (row % 100) as u16 + 1 }
}

/// Heap tid to row number.
pub fn row(tid: HeapTid) -> usize {
    tid.block as usize * 100 + usize::from(tid.offset) - 1
}

pub fn build(metric: Metric, rows: &[Vec<f32>], dim: usize, workers: usize) -> (MemStore, Report) {
    let sample: Vec<&[f32]> = rows.iter().step_by(rows.len() / 1000 + 1).map(Vec::as_slice).collect();
    let geometry = Geometry::new(dim).unwrap();
    let mut builder = Builder::new(metric, geometry, 42, &sample, usize::MAX, Parameters::default()).unwrap();
    for (i, row) in rows.iter().enumerate() {
        builder.add(row, tid(i)).unwrap();
    }
    let cancel = AtomicBool::new(false);
    let mut store = MemStore::new();
    let report = builder.finish(&Threads::new(workers, &cancel), &mut store, &mut |_| ()).unwrap();
    (store, report)
}

/// The `k` nearest rows as the executor finds them: it fetches rows until none that is still to come can be
/// nearer than the k-th exact distance seen. Also counts the rows fetched.
pub fn search(
    store: &MemStore,
    index: &Index,
    metric: Metric,
    rows: &[Vec<f32>],
    query: &[f32],
    k: usize,
    ef: usize,
) -> (Vec<usize>, usize, imgvec_ann::graph::walk::Stats) {
    use imgvec_ann::graph::search::{Options, Search};
    let mut search = Search::new(index, query, &Options { ef, ..Options::default() }).unwrap();
    let mut found: Vec<(f64, usize)> = Vec::new();
    let mut fetched = 0;
    while let Some(hit) = search.next(store, index).unwrap() {
        if found.len() == k && hit.lower_bound > found[k - 1].0 {
            break;
        }
        let row = row(hit.tid);
        let exact = distance(metric, &rows[row], query);
        assert!(hit.lower_bound <= exact, "bound {} above the distance {exact}", hit.lower_bound);
        fetched += 1;
        let at = found.partition_point(|&(d, _)| d <= exact);
        found.insert(at, (exact, row));
        found.truncate(k);
    }
    (found.into_iter().map(|(_, row)| row).collect(), fetched, search.stats())
}
