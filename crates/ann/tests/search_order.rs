//! The order in which a search gives rows: bounds never descend before the first late row, and every row
//! comes once, whatever the beam width and however little of the index its links lead to.

mod common;

use common::{Normal, build, distance, row};
use imgvec_ann::graph::search::{Hit, Options, Search};
use imgvec_ann::layout::BlockNumber;
use imgvec_ann::layout::meta::Meta;
use imgvec_ann::store::mem::MemStore;
use imgvec_ann::store::{Change, PageStore};
use imgvec_ann::{Index, Metric};
use proptest::prelude::*;

const DIM: usize = 16;

fn rows(count: usize, seed: u64) -> Vec<Vec<f32>> {
    let mut normal = Normal::new(seed);
    (0..count).map(|_| normal.vector(DIM, 1.0)).collect()
}

/// All hits, whose order is asserted, and how many nodes the search says were late.
fn all(store: &MemStore, query: &[f32], ef: usize) -> (Vec<Hit>, u64) {
    let index = Index::open(store).unwrap();
    let mut search = Search::new(&index, query, &Options { lookahead: ef, ..Options::default() }).unwrap();
    let hits: Vec<Hit> = std::iter::from_fn(|| search.next(store, &index).unwrap()).collect();
    let first_late = hits.iter().position(|hit| hit.late).unwrap_or(hits.len());
    let (in_order, late) = hits.split_at(first_late);
    assert!(in_order.is_sorted_by_key(|hit| hit.lower_bound), "bounds descend");
    assert!(late.iter().all(|hit| hit.late), "a row in time behind a late one");
    assert!(late.is_sorted_by_key(|hit| hit.lower_bound), "late rows are in order among themselves");
    (hits, search.stats().late)
}

fn numbers(hits: &[Hit]) -> Vec<usize> {
    let mut all: Vec<usize> = hits.iter().map(|hit| row(hit.tid)).collect();
    all.sort_unstable();
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_placed_row_is_at_its_place(
        metric in prop_oneof![Just(Metric::L2), Just(Metric::Cosine), Just(Metric::InnerProduct)],
        count in 0usize..800,
        copies in 0usize..50,
        seed in 0u64..1000,
    ) {
        let mut rows = rows(count, seed);
        rows.extend_from_within(..copies.min(count));
        let (store, _) = build(metric, &rows, DIM, 1);
        let query = &self::rows(1, seed + 5000)[0];
        let (hits, _) = all(&store, query, 20);
        let exact: Vec<f64> = hits.iter().map(|hit| distance(metric, &rows[row(hit.tid)], query)).collect();
        let in_time = hits.iter().filter(|hit| !hit.late).count();
        for (at, hit) in hits[..in_time].iter().enumerate() {
            prop_assert!(hit.lower_bound <= exact[at] && exact[at] <= hit.upper_bound, "{:?}: {}", hit, exact[at]);
            if hit.placed {
                prop_assert!(exact[..at].iter().all(|&before| before < exact[at]));
                prop_assert!(exact[at + 1..in_time].iter().all(|&behind| behind > exact[at]));
            }
        }
    }

    #[test]
    fn every_row_comes_once_and_in_order(
        metric in prop_oneof![Just(Metric::L2), Just(Metric::Cosine), Just(Metric::InnerProduct)],
        count in 0usize..1500,
        ef in 10usize..100,
        seed in 0u64..1000,
    ) {
        let (store, _) = build(metric, &rows(count, seed), DIM, 1);
        let (hits, late) = all(&store, &rows(1, seed + 5000)[0], ef);
        prop_assert_eq!(numbers(&hits), (0..count).collect::<Vec<_>>());
        // No two of these vectors are equal: a node is a row.
        prop_assert_eq!(hits.iter().filter(|hit| hit.late).count() as u64, late);
    }
}

/// A row is placed if its bounds overlap with no other's, which is chance for each and a matter of the bounds' width
/// for many.
#[test]
fn places_of_many_rows_are_certain() {
    for metric in [Metric::L2, Metric::Cosine, Metric::InnerProduct] {
        let placed: usize = (0..50)
            .map(|seed| {
                let (store, _) = build(metric, &rows(300, seed), DIM, 1);
                let (hits, _) = all(&store, &rows(1, seed + 5000)[0], 20);
                hits.iter().take(10).filter(|hit| hit.placed).count()
            })
            .sum();
        assert!(placed >= 100, "{metric:?}: {placed} of 500");
    }
}

#[test]
fn narrow_beams_find_some_rows_late() {
    let (store, _) = build(Metric::L2, &rows(3000, 1), DIM, 1);
    let late: u64 = (0..20).map(|seed| all(&store, &rows(1, 100 + seed)[0], 10).1).sum();
    assert!(late > 0, "else the tests of this file prove nothing");
}

#[test]
fn without_any_link_all_rows_come_in_order_from_the_pages() {
    let (store, _) = build(Metric::L2, &rows(700, 2), DIM, 1);
    let zero = BlockNumber(0);
    let mut change = store.change().unwrap();
    let page = change.page(zero).unwrap();
    let mut meta = Meta::decode(page).unwrap();
    (meta.entry_first, meta.entry_last, meta.entry_count) = (0, 0, 0);
    meta.encode_links(page);
    change.commit().unwrap();
    let (hits, late) = all(&store, &[0.1; DIM], 80);
    assert_eq!((numbers(&hits), late), ((0..700).collect(), 0));
}

#[test]
fn a_query_without_direction_gets_all_rows_and_none_late() {
    let (store, _) = build(Metric::Cosine, &rows(900, 3), DIM, 1);
    let (hits, late) = {
        let index = Index::open(&store).unwrap();
        let mut search = Search::new(&index, &[0.0; DIM], &Options::default()).unwrap();
        let hits: Vec<Hit> = std::iter::from_fn(|| search.next(&store, &index).unwrap()).collect();
        (hits, search.stats().late)
    };
    assert_eq!((numbers(&hits), late), ((0..900).collect(), 0));
    assert!(hits.iter().all(|hit| hit.lower_bound.is_nan() && !hit.late));
}
