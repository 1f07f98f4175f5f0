//! Key columns through the life of an index: every search gives every row that passes, once, whatever the filter, and finds
//! the nearest of them; and what edges say of their ends is true.

mod common;

use common::filtered::{KINDS, REGION, SCATTERED, TAGS, build_with_keys, keys, passing, share};
use common::{Data, exact, latent, nearest, row, tid};
use imgvec_ann::build::executor::Threads;
use imgvec_ann::build::{Builder, Parameters};
use imgvec_ann::filter::{Condition, Filter, NULL, key_bytes, signature};
use imgvec_ann::graph::check::{check, rows};
use imgvec_ann::graph::insert::insert_with_keys;
use imgvec_ann::graph::search::{Options, Search};
use imgvec_ann::graph::train::{is_due, train};
use imgvec_ann::graph::vacuum;
use imgvec_ann::layout::node::{Node, State};
use imgvec_ann::layout::{BlockNumber, Geometry, Kind, kind_in};
use imgvec_ann::random::SplitMix64;
use imgvec_ann::store::PageStore;
use imgvec_ann::store::mem::MemStore;
use imgvec_ann::{Index, Metric};
use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

const DIM: usize = 48;
const ROWS: usize = 6000;

fn data() -> (Data, Vec<[u64; 3]>) {
    let data = latent(DIM, ROWS, 30, 16, 7, false);
    let mut keys = keys(&data, 11);
    for row in (0..ROWS).step_by(10) {
        keys[row][row / 10 % 3] = NULL;
    }
    (data, keys)
}

/// Filters of all kinds, wide and narrow.
fn filters() -> Vec<Vec<(usize, Condition)>> {
    let tag = |tag: u64| signature([tag]);
    let column = |column: usize, condition: Condition| (column, condition);
    vec![
        vec![share(SCATTERED, 0.2, 0.5)],
        vec![share(SCATTERED, 0.5, 0.02)],
        vec![share(REGION, 0.1, 0.3)],
        vec![share(REGION, 0.9, 0.01), share(SCATTERED, 0.0, 0.5)],
        vec![column(TAGS, Condition::Overlaps(tag(3) | tag(40)))],
        vec![column(TAGS, Condition::Contains(tag(3)))],
        vec![column(SCATTERED, Condition::IsNull)],
        vec![column(REGION, Condition::IsNotNull), column(TAGS, Condition::IsNull)],
        vec![column(SCATTERED, Condition::OneOf(vec![1, 2, 3, 1 << 29]))],
        vec![column(SCATTERED, Condition::Never)],
    ]
}

/// Asserts that searches give the rows of the index that pass, all of them and no other, and that the index is sound.
#[track_caller]
fn assert_filters(store: &MemStore, data: &Data, keys: &[[u64; 3]], is_there: impl Fn(usize) -> bool) {
    let index = Index::open(store).unwrap();
    for (i, conditions) in filters().into_iter().enumerate() {
        let mut wanted = passing(&index, keys, &conditions);
        wanted.retain(|&row| is_there(row));
        let filter = Filter::new(index.space().columns(), conditions);
        let mut search = Search::filtered(&index, &data.queries[i], filter, &Options::default()).unwrap();
        let mut found = Vec::new();
        while let Some(hit) = search.next(store, &index).unwrap() {
            found.push(row(hit.tid));
        }
        found.sort_unstable();
        assert_eq!(found, wanted, "filter {i}");
    }
    assert_sound(store, &index);
    let mut seen = HashMap::new();
    rows(store, |tid, keys| assert_eq!(seen.insert(row(tid), keys.to_vec()), None)).unwrap();
    for row in (0..keys.len()).filter(|&row| is_there(row)) {
        assert_eq!(seen[&row], key_bytes(&keys[row]), "keys of row {row}");
    }
}

/// Asserts that each edge has the sketches of the node that it leads to.
#[track_caller]
fn assert_sound(store: &MemStore, index: &Index) {
    let report = check(store, |_, _| ()).unwrap();
    assert_eq!((report.problems, report.unreachable), (vec![], 0));
    let g = index.space().geometry();
    let mut sketches = HashMap::new();
    let mut edges = Vec::new();
    for block in (1..store.block_count().unwrap()).map(BlockNumber) {
        let page = store.read(block).unwrap();
        if kind_in(&page, g.epoch()).unwrap() != Kind::Node {
            continue;
        }
        for slot in 0..g.slots() {
            let node = Node::read(&page, g, slot).unwrap();
            if node.header().state == State::Free {
                continue;
            }
            sketches.insert(g.node_id(block, slot).unwrap(), index.space().columns().sketches(node.keys()));
            if node.header().state == State::Live {
                edges.extend((0..node.header().degree).map(|i| node.edge(i)));
            }
        }
    }
    // An edge may lead to a slot that was freed.
    for edge in edges {
        assert!(sketches.get(&edge.id).is_none_or(|own| *own == edge.sketches), "{edge:?}");
    }
}

#[test]
fn built_in_memory_and_from_files() {
    let (data, keys) = data();
    for memory in [usize::MAX, 2 << 20] {
        let store = build_with_keys(Metric::Cosine, &data, &keys, memory);
        assert_filters(&store, &data, &keys, |_| true);
    }
}

#[test]
fn filled_trained_deleted_from_and_filled_again() {
    let (data, keys) = data();
    let (cancel, mut store) = (AtomicBool::new(false), MemStore::new());
    let geometry = Geometry::new(DIM).unwrap().with_columns(&KINDS);
    let builder = Builder::new(Metric::L2, geometry, 3, &[], usize::MAX, Parameters::default()).unwrap();
    builder.finish(&Threads::new(1, &cancel), &mut store, &mut |_| ()).unwrap();
    let (mut index, mut random) = (Index::open(&store).unwrap(), SplitMix64::new(1));
    let mut fill = |index: &mut Index, rows: std::ops::Range<usize>| {
        for i in rows {
            insert_with_keys(&store, index, &data.rows[i], &keys[i], tid(i), &mut random).unwrap();
            if is_due(index.meta()) {
                train(&store, &Threads::new(1, &cancel), &mut random).unwrap();
            }
        }
    };
    fill(&mut index, 0..4000);
    assert!(index.space().columns().has_bounds(), "learned from what came");
    assert_filters(&store, &data, &keys, |row| row < 4000);
    vacuum::delete(&store, &index, |t| row(t).is_multiple_of(3)).unwrap();
    assert_filters(&store, &data, &keys, |row| row < 4000 && row % 3 != 0);
    vacuum::cleanup(&store, &mut index, &mut SplitMix64::new(2)).unwrap();
    fill(&mut index, 4000..ROWS);
    assert_filters(&store, &data, &keys, |row| row >= 4000 || row % 3 != 0);
}

#[test]
fn equal_vectors_with_other_keys_are_other_nodes() {
    let (data, keys) = data();
    let mut copies: Vec<[u64; 3]> = keys.clone();
    copies.iter_mut().for_each(|keys| keys[SCATTERED] = 77);
    let store = build_with_keys(Metric::Cosine, &data, &keys, usize::MAX);
    let (mut index, mut random) = (Index::open(&store).unwrap(), SplitMix64::new(1));
    for (i, keys) in copies.iter().enumerate().take(200) {
        insert_with_keys(&store, &mut index, &data.rows[i], keys, tid(ROWS + i), &mut random).unwrap();
        insert_with_keys(&store, &mut index, &data.rows[i], keys, tid(2 * ROWS + i), &mut random).unwrap();
    }
    let report = check(&store, |_, _| ()).unwrap();
    assert_eq!((report.live, report.rows), (ROWS as u64 + 200, ROWS as u64 + 400));
}

#[test]
fn the_nearest_of_those_that_pass_are_found() {
    let (data, keys) = data();
    let store = build_with_keys(Metric::Cosine, &data, &keys, usize::MAX);
    let index = Index::open(&store).unwrap();
    for conditions in filters() {
        let rows = passing(&index, &keys, &conditions);
        let some: Vec<Vec<f32>> = rows.iter().map(|&row| data.rows[row].clone()).collect();
        let (mut hits, mut wanted) = (0, 0);
        for query in &data.queries {
            let truth: Vec<usize> =
                exact(Metric::Cosine, &some, query, 10).into_iter().map(|i| rows[i]).collect();
            let filter = Filter::new(index.space().columns(), conditions.clone());
            let search = Search::filtered(&index, query, filter, &Options::default()).unwrap();
            let (found, ..) = nearest(search, &store, &index, Metric::Cosine, &data.rows, query, 10);
            hits += found.iter().filter(|row| truth.contains(row)).count();
            wanted += truth.len();
        }
        // All of them, when this was written.
        assert!(hits * 10 >= wanted * 8, "{conditions:?}: {hits} of {wanted}");
    }
}
