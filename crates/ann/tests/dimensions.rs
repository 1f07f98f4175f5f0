//! The whole life of an index at unusual dimensions, and builds that end early.

mod common;

use common::{Normal, build, exact, row, search, tid};
use imgvec_ann::build::executor::Threads;
use imgvec_ann::build::{BuildError, Builder, Parameters};
use imgvec_ann::graph::check::check;
use imgvec_ann::graph::insert::insert;
use imgvec_ann::graph::vacuum;
use imgvec_ann::layout::Geometry;
use imgvec_ann::random::SplitMix64;
use imgvec_ann::store::PageStore;
use imgvec_ann::store::mem::MemStore;
use imgvec_ann::{Index, Metric};
use std::sync::atomic::AtomicBool;

#[test]
fn build_insert_delete_and_search_at_any_dimension() {
    for dim in [1, 2, 63, 64, 65, 128, 192, 256, 320, 784, 1536, 2048, 4000] {
        let mut normal = Normal::new(dim as u64);
        let rows: Vec<Vec<f32>> = (0..400).map(|_| normal.vector(dim, 1.0)).collect();
        let (store, _) = build(Metric::L2, &rows[..300], dim, 1);
        let (mut index, mut random) = (Index::open(&store).unwrap(), SplitMix64::new(1));
        for (i, vector) in rows.iter().enumerate().skip(300) {
            insert(&store, &mut index, vector, tid(i), &mut random).unwrap();
        }
        vacuum::delete(&store, &index, |t| row(t) < 100).unwrap();
        vacuum::cleanup(&store, &mut index, &mut random).unwrap();
        let report = check(&store, |_, _| ()).unwrap();
        assert_eq!((report.problems, report.unreachable, report.rows), (vec![], 0, 300), "{dim}");
        let mut hits = 0;
        for query in rows.iter().skip(100).step_by(30) {
            // Independent normal numbers have no neighborhoods in many dimensions: only a beam that
            // holds the index (a node may wait in it twice) finds the nearest, and then the bounds must make the
            // answer exact.
            let (found, _, _) = search(&store, &index, Metric::L2, &rows, query, 5, 800);
            let truth: Vec<usize> =
                exact(Metric::L2, &rows[100..], query, 5).into_iter().map(|i| i + 100).collect();
            hits += found.iter().filter(|i| truth.contains(i)).count();
        }
        assert_eq!(hits, 50, "{dim} dimensions");
    }
}

#[test]
fn senseless_parameters_still_build() {
    let mut normal = Normal::new(1);
    let rows: Vec<Vec<f32>> = (0..300).map(|_| normal.vector(8, 1.0)).collect();
    let (fan_out, alpha) = (vec![0, 1_000_000], f32::NAN);
    let parameters = Parameters { leaf_rows: 0, fan_out, leaf_nearest: 0, leaf_kept: 0, alpha, seed: 1 };
    let mut builder = Builder::new(Metric::L2, Geometry::new(8).unwrap(), 1, &[], 0, parameters).unwrap();
    for (i, row) in rows.iter().enumerate() {
        builder.add(row, tid(i)).unwrap();
    }
    assert_eq!(builder.memory_wanted(), None, "1,000 rows are always held");
    let (cancel, mut store) = (AtomicBool::new(false), MemStore::new());
    builder.finish(&Threads::new(2, &cancel), &mut store, &mut |_| ()).unwrap();
    let report = check(&store, |_, _| ()).unwrap();
    assert_eq!((report.problems, report.unreachable, report.rows), (vec![], 0, 300));
}

#[test]
fn builds_do_not_depend_on_the_number_of_threads() {
    let mut normal = Normal::new(1);
    let rows: Vec<Vec<f32>> = (0..3000).map(|_| normal.vector(64, 1.0)).collect();
    let (one, _) = build(Metric::Cosine, &rows, 64, 1);
    let (three, _) = build(Metric::Cosine, &rows, 64, 3);
    let pages = one.block_count().unwrap();
    assert_eq!(three.block_count().unwrap(), pages);
    for block in (0..pages).map(imgvec_ann::layout::BlockNumber) {
        let page = *one.read(block).unwrap();
        assert!(page == *three.read(block).unwrap(), "{block:?}");
    }
}

#[test]
fn a_cancelled_build_ends() {
    let geometry = Geometry::new(8).unwrap();
    let mut builder = Builder::new(Metric::L2, geometry, 1, &[], usize::MAX, Parameters::default()).unwrap();
    let mut normal = Normal::new(1);
    for i in 0..100 {
        builder.add(&normal.vector(8, 1.0), tid(i)).unwrap();
    }
    let cancel = AtomicBool::new(true);
    let result = builder.finish(&Threads::new(2, &cancel), &mut MemStore::new(), &mut |_| ());
    assert!(matches!(result, Err(BuildError::Cancelled)));
}
