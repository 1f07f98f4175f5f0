//! Indexes of format 1, as release 0.1 wrote them, go on working: search, insert, sharing, vacuum, check.

mod common;

use common::{Data, exact, latent, row, search, tid};
use imgvec_ann::build::executor::Threads;
use imgvec_ann::build::{Builder, Parameters};
use imgvec_ann::graph::check::check;
use imgvec_ann::graph::insert::{Inserted, insert};
use imgvec_ann::graph::vacuum;
use imgvec_ann::layout::{BlockNumber, Geometry, meta};
use imgvec_ann::random::SplitMix64;
use imgvec_ann::store::PageStore;
use imgvec_ann::store::mem::MemStore;
use imgvec_ann::{Index, Metric};
use std::sync::atomic::AtomicBool;

fn build(geometry: Geometry, metric: Metric, rows: &[Vec<f32>]) -> MemStore {
    let sample: Vec<&[f32]> = rows.iter().step_by(3).map(Vec::as_slice).collect();
    let mut builder = Builder::new(metric, geometry, 42, &sample, usize::MAX, Parameters::default()).unwrap();
    for (i, vector) in rows.iter().enumerate() {
        builder.add(vector, tid(i)).unwrap();
    }
    let (cancel, mut store) = (AtomicBool::new(false), MemStore::new());
    builder.finish(&Threads::new(2, &cancel), &mut store, &mut |_| ()).unwrap();
    store
}

fn recall(store: &MemStore, metric: Metric, data: &Data, is_there: impl Fn(usize) -> bool) -> f64 {
    let index = Index::open(store).unwrap();
    let there: Vec<usize> = (0..data.rows.len()).filter(|&i| is_there(i)).collect();
    let rows: Vec<Vec<f32>> = there.iter().map(|&i| data.rows[i].clone()).collect();
    let mut hits = 0;
    for query in &data.queries {
        let truth: Vec<usize> = exact(metric, &rows, query, 10).into_iter().map(|i| there[i]).collect();
        let (found, _, _) = search(store, &index, metric, &data.rows, query, 10, 60);
        hits += found.iter().filter(|row| truth.contains(row)).count();
    }
    hits as f64 / (10 * data.queries.len()) as f64
}

#[test]
fn indexes_of_both_formats_live_on() {
    const ROWS: usize = 4000;
    for (dim, metric) in [(128, Metric::Cosine), (200, Metric::L2), (128, Metric::InnerProduct)] {
        let data = latent(dim, ROWS, 40, dim / 4, 7, false);
        let usual = Geometry::new(dim).unwrap();
        for (geometry, version) in [(usual.in_format_1(), 1), (usual, 2)] {
            let store = build(geometry, metric, &data.rows[..3000]);
            let (mut index, mut random) = (Index::open(&store).unwrap(), SplitMix64::new(5));
            assert_eq!(index.space().geometry().format(), version);
            for (i, vector) in data.rows.iter().enumerate().skip(3000) {
                assert!(matches!(
                    insert(&store, &mut index, vector, tid(i), &mut random).unwrap(),
                    Inserted::Node(_)
                ));
            }
            let grown = recall(&store, metric, &data, |_| true);
            // The same vectors again, under other tids, share nodes.
            for i in (0..ROWS).step_by(100) {
                let other = tid(ROWS + i);
                let inserted = insert(&store, &mut index, &data.rows[i], other, &mut random).unwrap();
                assert!(matches!(inserted, Inserted::Shared(_)), "{metric:?} {version}: {inserted:?}");
            }
            vacuum::delete(&store, &index, |t| row(t) % 4 == 1 || row(t) >= ROWS).unwrap();
            vacuum::cleanup(&store, &mut index, &mut random).unwrap();
            let left = recall(&store, metric, &data, |i| i % 4 != 1);
            assert!(grown > 0.9 && left > 0.9, "{metric:?} {version}: {grown} {left}");
            let report = check(&store, |_, _| ()).unwrap();
            assert!(
                report.problems.is_empty() && report.unreachable == 0,
                "{metric:?} {version}: {report:?}"
            );
            assert_eq!(meta::version(&store.read(BlockNumber(0)).unwrap()), version.into());
        }
    }
}
