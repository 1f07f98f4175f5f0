//! Generated data sets, exact answers and built indexes for the tests and benches.
#![allow(dead_code, unused_imports, reason = "each test binary uses its part")]

use imgvec_ann::build::executor::Threads;
use imgvec_ann::build::{Builder, Parameters, Report};
use imgvec_ann::layout::{Geometry, HeapTid};
use imgvec_ann::store::mem::MemStore;
use imgvec_ann::{Index, Metric};
use std::sync::atomic::AtomicBool;

pub mod filtered;
pub mod generate;
pub use generate::{Data, Normal, clustered, latent, manifold};

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
        Metric::InnerProduct if ab.is_finite() => -ab,
        Metric::InnerProduct => -a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>(),
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
    build_within(usize::MAX, metric, rows, dim, workers)
}

/// A build that may use so much memory, and files otherwise.
pub fn build_within(
    memory_bytes: usize,
    metric: Metric,
    rows: &[Vec<f32>],
    dim: usize,
    workers: usize,
) -> (MemStore, Report) {
    let builder = builder_within(memory_bytes, metric, rows, dim);
    let cancel = AtomicBool::new(false);
    let mut store = MemStore::new();
    let report = builder.finish(&Threads::new(workers, &cancel), &mut store, &mut |_| ()).unwrap();
    (store, report)
}

/// A builder that has all rows.
pub fn builder_within(memory_bytes: usize, metric: Metric, rows: &[Vec<f32>], dim: usize) -> Builder {
    let sample: Vec<&[f32]> = rows.iter().step_by(rows.len() / 1000 + 1).map(Vec::as_slice).collect();
    let geometry = Geometry::new(dim).unwrap();
    let mut builder =
        Builder::new(metric, geometry, 42, &sample, memory_bytes, Parameters::default()).unwrap();
    for (i, row) in rows.iter().enumerate() {
        builder.add(row, tid(i)).unwrap();
    }
    builder
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
    let search = Search::new(index, query, &Options { lookahead: ef, ..Options::default() }).unwrap();
    nearest(search, store, index, metric, rows, query, k)
}

/// As [`search`], of a search that is prepared.
pub fn nearest(
    mut search: imgvec_ann::graph::search::Search,
    store: &MemStore,
    index: &Index,
    metric: Metric,
    rows: &[Vec<f32>],
    query: &[f32],
    k: usize,
) -> (Vec<usize>, usize, imgvec_ann::graph::walk::Stats) {
    let mut found: Vec<(f64, usize)> = Vec::new();
    let mut fetched = 0;
    while let Some(hit) = search.next(store, index).unwrap() {
        if found.len() == k && hit.claimed_bound() > found[k - 1].0 {
            break;
        }
        let row = row(hit.tid);
        let exact = distance(metric, &rows[row], query);
        assert!(
            (hit.claimed_bound()..=hit.upper_bound).contains(&exact),
            "{exact} is not within bounds: {hit:?}"
        );
        fetched += 1;
        let at = found.partition_point(|&(d, _)| d <= exact);
        found.insert(at, (exact, row));
        found.truncate(k);
    }
    (found.into_iter().map(|(_, row)| row).collect(), fetched, search.stats())
}
