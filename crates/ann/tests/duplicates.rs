//! Many rows with one vector, vectors of zeros, and extreme values.

mod common;

use common::{Normal, build, exact, row, search, tid};
use imgvec_ann::graph::check::check;
use imgvec_ann::graph::insert::{Inserted, insert};
use imgvec_ann::graph::search::{Options, Search};
use imgvec_ann::graph::vacuum;
use imgvec_ann::random::SplitMix64;
use imgvec_ann::store::PageStore;
use imgvec_ann::store::mem::MemStore;
use imgvec_ann::{Index, Metric};

const DIM: usize = 48;

fn nearest(store: &MemStore, index: &Index, query: &[f32], limit: usize) -> Vec<usize> {
    let mut search = Search::new(index, query, &Options::default()).unwrap();
    std::iter::from_fn(|| search.next(store, index).unwrap()).take(limit).map(|hit| row(hit.tid)).collect()
}

#[test]
fn ten_thousand_copies_share_a_node_however_they_came() {
    let mut normal = Normal::new(1);
    let copy = normal.vector(DIM, 1.0);
    let mut rows: Vec<Vec<f32>> = (0..500).map(|_| normal.vector(DIM, 1.0)).collect();
    rows.extend((0..5000).map(|_| copy.clone()));
    let (store, report) = build(Metric::L2, &rows, DIM, 1);
    assert_eq!((report.rows, report.nodes), (5500, 501));
    let pages = store.block_count().unwrap();
    let (mut index, mut random) = (Index::open(&store).unwrap(), SplitMix64::new(1));
    for i in 5500..10_500 {
        let inserted = insert(&store, &mut index, &copy, tid(i), &mut random).unwrap();
        assert!(matches!(inserted, Inserted::Shared(_)));
    }
    assert!(store.block_count().unwrap() <= pages + 6, "5,000 rows of 6 bytes");
    let mut found = nearest(&store, &index, &copy, 10_000);
    found.sort_unstable();
    assert_eq!(found, (500..10_500).collect::<Vec<_>>(), "all copies come before all others");
    assert_eq!(check(&store, |_, _| ()).unwrap().problems, []);

    // Nine of ten go, then the rest; their cells are used again.
    let index2 = Index::open(&store).unwrap();
    let stats = vacuum::delete(&store, &index2, |t| row(t) >= 500 && !row(t).is_multiple_of(10)).unwrap();
    assert_eq!((stats.removed, stats.rows, stats.died), (9000, 1500, 0));
    vacuum::cleanup(&store, &mut index, &mut random).unwrap();
    assert_eq!(nearest(&store, &index, &copy, 1000).iter().filter(|&&i| i >= 500).count(), 1000);
    let stats = vacuum::delete(&store, &index2, |t| row(t) >= 500).unwrap();
    assert_eq!((stats.removed, stats.rows, stats.died), (1000, 500, 1));
    vacuum::cleanup(&store, &mut index, &mut random).unwrap();
    assert!(nearest(&store, &index, &copy, 600).iter().all(|&i| i < 500));
    let pages = store.block_count().unwrap();
    for i in 20_000..25_000 {
        insert(&store, &mut index, &copy, tid(i), &mut random).unwrap();
    }
    assert_eq!(store.block_count().unwrap(), pages, "cells and slots were free");
    assert_eq!(check(&store, |_, _| ()).unwrap().problems, []);
}

#[test]
fn updates_of_other_columns_do_not_touch_the_graph() {
    let mut normal = Normal::new(2);
    let rows: Vec<Vec<f32>> = (0..2000).map(|_| normal.vector(DIM, 1.0)).collect();
    let (store, _) = build(Metric::Cosine, &rows, DIM, 1);
    let (mut index, mut random) = (Index::open(&store).unwrap(), SplitMix64::new(1));
    let before = (store.commits(), store.block_count().unwrap());
    for (i, vector) in rows.iter().enumerate() {
        insert(&store, &mut index, vector, tid(10_000 + i), &mut random).unwrap();
    }
    assert_eq!(store.commits() - before.0, 2000, "one change each");
    assert!(store.block_count().unwrap() - before.1 <= 2000 / 127 + 1);
    vacuum::delete(&store, &index, |t| row(t) < 10_000).unwrap();
    vacuum::cleanup(&store, &mut index, &mut random).unwrap();
    let report = check(&store, |_, _| ()).unwrap();
    assert_eq!((report.live, report.dead, report.rows), (2000, 0, 2000));
    assert_eq!(nearest(&store, &index, &rows[77], 1), [10_077]);
}

#[test]
fn zero_vectors_have_no_cosine_and_break_nothing() {
    let mut rows: Vec<Vec<f32>> = (0..50).map(|i| Normal::new(i).vector(DIM, 1.0)).collect();
    rows[7] = vec![0.0; DIM];
    for metric in [Metric::Cosine, Metric::L2, Metric::InnerProduct] {
        let (store, report) = build(metric, &rows, DIM, 1);
        let (mut index, mut random) = (Index::open(&store).unwrap(), SplitMix64::new(1));
        let inserted = insert(&store, &mut index, &[0.0; DIM], tid(100), &mut random).unwrap();
        let indexed = if metric == Metric::Cosine { 49 } else { 51 };
        assert_eq!(inserted == Inserted::NoDirection, metric == Metric::Cosine);
        assert_eq!(report.rows, indexed.min(50));
        let mut search = Search::new(&index, &[0.0; DIM], &Options::default()).unwrap();
        let hits: Vec<_> = std::iter::from_fn(|| search.next(&store, &index).unwrap()).collect();
        assert_eq!(hits.len() as u64, indexed);
        match metric {
            Metric::Cosine => assert!(hits.iter().all(|h| h.lower_bound.is_nan())),
            Metric::L2 => assert_eq!(hits[..2].iter().map(|h| row(h.tid)).sum::<usize>(), 107),
            Metric::InnerProduct => assert!(hits.iter().all(|h| h.lower_bound <= 0.0)),
        }
    }
}

#[test]
fn bounds_hold_for_large_small_and_offset_vectors() {
    for (scale, offset) in [(1e-12f32, 0.0f32), (1e9, 0.0), (1.0, 300.0), (1e15, 1e15)] {
        let mut normal = Normal::new(4);
        let rows: Vec<Vec<f32>> =
            (0..800).map(|_| normal.vector(DIM, scale).into_iter().map(|x| x + offset).collect()).collect();
        for metric in [Metric::Cosine, Metric::L2, Metric::InnerProduct] {
            let (store, _) = build(metric, &rows, DIM, 1);
            let index = Index::open(&store).unwrap();
            let mut hits = 0;
            for query in rows.iter().step_by(40) {
                // `search` asserts that no bound exceeds its distance.
                let (found, _, _) = search(&store, &index, metric, &rows, query, 10, 80);
                let truth = exact(metric, &rows, query, 10);
                hits += found.iter().filter(|i| truth.contains(i)).count();
            }
            assert!(hits >= 190, "{metric:?} {scale} {offset}: {hits} of 200");
        }
    }
}

#[test]
fn vectors_that_do_not_fit_are_refused() {
    use imgvec_ann::space::VectorError;
    let (store, _) = build(Metric::L2, &[vec![1.0; DIM]], DIM, 1);
    let index = Index::open(&store).unwrap();
    let space = index.space();
    assert_eq!(space.quantize(&[1.0; 3]), Err(VectorError::Dimensions { expected: DIM, found: 3 }));
    assert_eq!(space.quantize(&[1e30; DIM]), Err(VectorError::TooLong));
    assert_eq!(space.quantize(&[f32::NAN; DIM]), Err(VectorError::NotFinite));
}

#[test]
fn bounds_hold_for_queries_longer_than_any_row() {
    let mut normal = Normal::new(5);
    for scale in [1.0f32, 1e9, 1e16] {
        let rows: Vec<Vec<f32>> = (0..300).map(|_| normal.vector(DIM, scale)).collect();
        let direction = normal.vector(DIM, 1.0);
        for length in [1e18f32, 1e20, 1e30, 1e37] {
            let query: Vec<f32> = direction.iter().map(|x| x * length).collect();
            for metric in [Metric::L2, Metric::InnerProduct] {
                let (store, _) = build(metric, &rows, DIM, 1);
                let index = Index::open(&store).unwrap();
                let (found, _, _) = search(&store, &index, metric, &rows, &query, 10, 80);
                let truth = exact(metric, &rows, &query, 10);
                let hits = found.iter().filter(|i| truth.contains(i)).count();
                // By L2 most rows are equally far away, as far as 64 bits can tell.
                assert!(metric == Metric::L2 || hits >= 9, "{scale} {length}: {hits} of 10");
                assert_eq!(found.len(), 10);
            }
        }
    }
}
