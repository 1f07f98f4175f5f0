//! Rows with keys, and filters that a given share of them passes.

use super::{Data, tid};
use imgvec_ann::build::executor::Threads;
use imgvec_ann::build::{Builder, Parameters};
use imgvec_ann::filter::{Condition, Filter, Kind, signature};
use imgvec_ann::layout::Geometry;
use imgvec_ann::random::SplitMix64;
use imgvec_ann::store::mem::MemStore;
use imgvec_ann::{Index, Metric};
use std::sync::atomic::AtomicBool;

/// Keys of the tests: a number that has nothing to do with the vector, one that goes with it, and a set of tags.
pub const KINDS: [Kind; 3] = [Kind::Ordered, Kind::Ordered, Kind::Signature];
pub const SCATTERED: usize = 0;
pub const REGION: usize = 1;
pub const TAGS: usize = 2;
/// Keys are below this.
pub const KEYS: u64 = 1 << 30;

/// A row's place along a direction, from -1 to 1 or so.
fn along(direction: &[f32], vector: &[f32]) -> f64 {
    let dot: f64 = direction.iter().zip(vector).map(|(a, b)| f64::from(a * b)).sum();
    let norm = |v: &[f32]| v.iter().map(|x| f64::from(x * x)).sum::<f64>().sqrt();
    dot / (norm(direction) * norm(vector)).max(1e-9)
}

/// Keys of all rows. The second is the rank of the row along the direction of the first one.
pub fn keys(data: &Data, seed: u64) -> Vec<[u64; 3]> {
    let (n, mut random) = (data.rows.len(), SplitMix64::new(seed));
    let mut order: Vec<usize> = (0..n).collect();
    let places: Vec<f64> = data.rows.iter().map(|row| along(&data.rows[0], row)).collect();
    order.sort_by(|&a, &b| places[a].total_cmp(&places[b]));
    let mut all = vec![[0; 3]; n];
    for (rank, row) in order.into_iter().enumerate() {
        let tags = (0..random.below(4)).map(|_| random.below(100) as u64).collect::<Vec<_>>();
        all[row] = [random.next_u64() % KEYS, rank as u64 * KEYS / n as u64, signature(tags)];
    }
    all
}

/// Keys of one column that such a share of rows has, from a place on.
pub fn share(column: usize, from: f64, share: f64) -> (usize, Condition) {
    let at = |x: f64| (x * KEYS as f64) as u64;
    (column, Condition::Within { low: at(from), high: at(from + share).max(1) - 1 })
}

pub fn build_with_keys(metric: Metric, data: &Data, keys: &[[u64; 3]], memory_bytes: usize) -> MemStore {
    let sample: Vec<&[f32]> =
        data.rows.iter().step_by(data.rows.len() / 1000 + 1).map(Vec::as_slice).collect();
    let sampled: Vec<u64> = keys.iter().step_by(keys.len() / 1000 + 1).flatten().copied().collect();
    let geometry = Geometry::new(data.dim).unwrap().with_columns(&KINDS);
    let builder = Builder::new(metric, geometry, 42, &sample, memory_bytes, Parameters::default()).unwrap();
    let mut builder = builder.with_sample_of_keys(&sampled);
    for (i, (row, keys)) in data.rows.iter().zip(keys).enumerate() {
        builder.add_with_keys(row, keys, tid(i)).unwrap();
    }
    let (cancel, mut store) = (AtomicBool::new(false), MemStore::new());
    builder.finish(&Threads::new(2, &cancel), &mut store, &mut |_| ()).unwrap();
    store
}

/// Rows that pass, by their numbers.
pub fn passing(index: &Index, keys: &[[u64; 3]], conditions: &[(usize, Condition)]) -> Vec<usize> {
    let filter = Filter::new(index.space().columns(), conditions.to_vec());
    let passes = |keys: &[u64; 3]| filter.admits(&imgvec_ann::filter::key_bytes(keys));
    (0..keys.len()).filter(|&row| passes(&keys[row])).collect()
}
