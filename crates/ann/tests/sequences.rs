//! Random sequences of inserts, deletes, vacuums and crashes against the pedantic store.

mod common;

use common::{Normal, build, row, tid};
use imgvec_ann::graph::check::check;
use imgvec_ann::graph::insert::{InsertError, Inserted, insert};
use imgvec_ann::graph::search::{Options, Search};
use imgvec_ann::graph::vacuum;
use imgvec_ann::random::SplitMix64;
use imgvec_ann::store::PageStore;
use imgvec_ann::store::mem::{MemError, MemStore};
use imgvec_ann::{AccessError, Index, Metric};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// What the table knows: live rows with their vectors, and rows that vacuum shall remove.
struct Model {
    store: MemStore,
    metric: Metric,
    live: BTreeMap<usize, Vec<f32>>,
    dead: BTreeSet<usize>,
    next: usize,
    random: SplitMix64,
}

#[derive(Clone, Debug)]
enum Operation {
    /// Insert rows near a center; copies of one vector if the spread is 0.
    Insert {
        count: usize,
        center: u8,
        spread: u8,
    },
    /// Delete every n-th row, or all.
    Delete {
        every: usize,
    },
    Vacuum,
    /// Let so many changes commit, then crash.
    CrashAfter {
        commits: u64,
    },
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => (1usize..60, any::<u8>(), 0u8..3)
            .prop_map(|(count, center, spread)| Operation::Insert { count, center, spread }),
        2 => (1usize..5).prop_map(|every| Operation::Delete { every }),
        2 => Just(Operation::Vacuum),
        2 => (0u64..200).prop_map(|commits| Operation::CrashAfter { commits }),
    ]
}

impl Model {
    fn new(metric: Metric, built: usize) -> Self {
        let mut normal = Normal::new(3);
        let rows: Vec<Vec<f32>> = (0..built).map(|_| normal.vector(DIM, 1.0)).collect();
        let (store, report) = build(metric, &rows, DIM, 1);
        assert_eq!(report.rows, built as u64);
        let live = rows.into_iter().enumerate().collect();
        Self { store, metric, live, dead: BTreeSet::new(), next: built, random: SplitMix64::new(9) }
    }

    fn run(&mut self, operation: &Operation) {
        let result = match *operation {
            Operation::CrashAfter { commits } => {
                self.store.crash_after(commits);
                Ok(())
            }
            Operation::Delete { every } => {
                let gone: Vec<usize> = self.live.keys().copied().filter(|i| i % every == 0).collect();
                for i in gone {
                    self.live.remove(&i);
                    self.dead.insert(i);
                }
                Ok(())
            }
            Operation::Insert { count, center, spread } => self.insert(count, center, spread),
            Operation::Vacuum => self.vacuum(),
        };
        match result {
            Ok(()) => {}
            Err(AccessError::Store(MemError::Crashed)) => {
                self.store = std::mem::take(&mut self.store).restart();
                self.check();
            }
            Err(error) => panic!("{operation:?}: {error}"),
        }
    }

    fn insert(&mut self, count: usize, center: u8, spread: u8) -> Result<(), AccessError<MemError>> {
        let mut normal = Normal::new(u64::from(center));
        let middle = normal.vector(DIM, 3.0);
        let mut index = Index::open(&self.store)?;
        for _ in 0..count {
            let noise = normal.vector(DIM, f32::from(spread) * 0.2);
            let vector: Vec<f32> = middle.iter().zip(&noise).map(|(a, b)| a + b).collect();
            // A row whose insert fails is aborted: vacuum will find it dead, indexed or not.
            let i = self.next;
            self.next += 1;
            self.dead.insert(i);
            match insert(&self.store, &mut index, &vector, tid(i), &mut self.random) {
                Ok(Inserted::NoDirection) => panic!("no vector here is zero"),
                Ok(_) => {
                    self.dead.remove(&i);
                    self.live.insert(i, vector);
                }
                Err(InsertError::Access(error)) => return Err(error),
                Err(InsertError::Vector(error)) => panic!("{error}"),
            }
        }
        Ok(())
    }

    fn vacuum(&mut self) -> Result<(), AccessError<MemError>> {
        let mut index = Index::open(&self.store)?;
        let dead = self.dead.clone();
        let stats = vacuum::delete(&self.store, &index, |t| dead.contains(&row(t)))?;
        assert_eq!(stats.rows, self.live.len() as u64);
        self.dead.clear();
        vacuum::cleanup(&self.store, &mut index, &mut self.random)?;
        Ok(())
    }

    /// The whole index is sound, holds every live row once, and every live row is reached and finds itself.
    fn check(&self) {
        let mut rows: Vec<usize> = Vec::new();
        let report = check(&self.store, |t, _| rows.push(row(t))).unwrap();
        assert_eq!(report.problems, []);
        assert_eq!(report.rows, rows.len() as u64);
        rows.sort_unstable();
        let unique: BTreeSet<usize> = rows.iter().copied().collect();
        assert_eq!(unique.len(), rows.len(), "a row is indexed twice");
        for i in self.live.keys() {
            assert!(unique.contains(i), "row {i} is lost");
        }
        for i in &unique {
            assert!(self.live.contains_key(i) || self.dead.contains(i), "row {i} came back");
        }
        assert_eq!(report.unreachable, 0, "of {} live nodes", report.live);
        let index = Index::open(&self.store).unwrap();
        for (&i, vector) in self.live.iter().step_by(7) {
            let mut search = Search::new(&index, vector, &Options::default()).unwrap();
            let mut found = false;
            while let Some(hit) = search.next(&self.store, &index).unwrap() {
                let own = if self.metric == Metric::InnerProduct { f64::INFINITY } else { 1e-3 };
                assert!(hit.lower_bound <= own, "row {i} does not find itself");
                if row(hit.tid) == i {
                    found = true;
                    break;
                }
            }
            assert!(found, "row {i} does not find itself");
        }
        // A search that is never stopped gives every row once.
        let mut search = Search::new(&index, &[1.0; DIM], &Options::default()).unwrap();
        let mut all = Vec::new();
        while let Some(hit) = search.next(&self.store, &index).unwrap() {
            all.push(row(hit.tid));
        }
        all.sort_unstable();
        assert_eq!(all, rows);
    }
}

const DIM: usize = 12;

fn run(metric: Metric, built: usize, operations: &[Operation]) {
    let mut model = Model::new(metric, built);
    for operation in operations {
        model.run(operation);
    }
    // Whatever crash was still due is called off.
    model.store = std::mem::take(&mut model.store).restart();
    model.check();
    model.vacuum().unwrap();
    model.check();
    let report = check(&model.store, |_, _| ()).unwrap();
    assert_eq!((report.dead, report.stale_edges), (0, 0), "vacuum leaves nothing behind");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn sequences_keep_the_index_sound(
        metric in prop_oneof![Just(Metric::L2), Just(Metric::Cosine), Just(Metric::InnerProduct)],
        built in prop_oneof![Just(0usize), 0usize..200],
        operations in proptest::collection::vec(operation(), 1..14),
    ) {
        run(metric, built, &operations);
    }
}

#[test]
fn every_prefix_of_an_insert_and_a_vacuum_is_sound() {
    let base = |commits: u64| {
        let mut model = Model::new(Metric::L2, 120);
        model.run(&Operation::Delete { every: 3 });
        model.store.crash_after(commits);
        let crashed = model.insert(3, 1, 1).and_then(|()| model.vacuum()).is_err();
        model.store = std::mem::take(&mut model.store).restart();
        model.check();
        crashed
    };
    let mut commits = 0;
    while base(commits) {
        commits += 1;
    }
    assert!(commits > 50, "an insert and a vacuum are many changes: {commits}");
}

#[test]
fn a_vacuum_may_end_between_the_cells_of_a_node_and_its_header() {
    let ends_early = |commits: u64| {
        let mut model = Model::new(Metric::L2, 30);
        // Two rows of one node, one in its header and one in a cell. The first to go leaves the node to the cell.
        model.run(&Operation::Insert { count: 2, center: 0, spread: 0 });
        model.run(&Operation::Delete { every: 30 });
        model.vacuum().unwrap();
        model.run(&Operation::Delete { every: 1 });
        model.store.crash_after(commits);
        let crashed = model.vacuum().is_err();
        model.store = std::mem::take(&mut model.store).restart();
        model.check();
        model.dead.extend(0..model.next);
        model.vacuum().unwrap();
        let report = check(&model.store, |_, _| ()).unwrap();
        assert_eq!((report.live, report.dead, report.rows), (0, 0, 0));
        crashed
    };
    assert!((0..).find(|&commits| !ends_early(commits)).unwrap() > 10);
}

#[test]
fn an_index_that_starts_empty_grows() {
    let mut model = Model::new(Metric::Cosine, 0);
    for center in 0..40 {
        model.run(&Operation::Insert { count: 50, center, spread: 1 });
    }
    model.check();
    let index = Index::open(&model.store).unwrap();
    assert!(index.entry_points().count() >= 1000, "entries grow with the index");
}

#[test]
fn everything_can_be_deleted_and_slots_are_used_again() {
    let mut model = Model::new(Metric::L2, 300);
    let mut pages = Vec::new();
    for round in 0..6 {
        model.run(&Operation::Delete { every: 1 });
        model.vacuum().unwrap();
        model.check();
        for center in 0..6 {
            model.run(&Operation::Insert { count: 50, center: 10 * round + center, spread: 2 });
        }
        model.check();
        pages.push(imgvec_ann::store::PageStore::block_count(&model.store).unwrap());
    }
    assert_eq!(pages.first(), pages.last(), "the size stays on a plateau: {pages:?}");
}

#[test]
fn a_search_goes_on_while_vacuum_takes_its_cells_and_others_use_them() {
    let copies = Operation::Insert { count: 600, center: 1, spread: 0 };
    let more = [copies.clone(), Operation::Insert { count: 600, center: 2, spread: 0 }];
    for taken in [1, 60, 61, 100, 333, 590] {
        let mut model = Model::new(Metric::L2, 50);
        model.run(&copies);
        let pages = imgvec_ann::store::PageStore::block_count(&model.store).unwrap();
        let before = model.live.clone();
        let query = before[&100].clone();
        let index = Index::open(&model.store).unwrap();
        let mut search = Search::new(&index, &query, &Options::default()).unwrap();
        let next = |search: &mut Search, store: &MemStore| {
            search.next(store, &index).unwrap().map(|hit| row(hit.tid))
        };
        let mut found: Vec<usize> = (0..taken).map(|_| next(&mut search, &model.store).unwrap()).collect();
        // Runs of five cells die.
        let dead: Vec<usize> = before.keys().copied().filter(|i| i / 40 % 2 == 0).collect();
        for i in dead {
            model.live.remove(&i);
            model.dead.insert(i);
        }
        model.vacuum().unwrap();
        model.check();
        more.iter().for_each(|operation| model.run(operation));
        model.check();
        let now = imgvec_ann::store::PageStore::block_count(&model.store).unwrap();
        assert!(now <= pages + 2, "cells are used again: {pages} pages, then {now}");
        found.extend(std::iter::from_fn(|| next(&mut search, &model.store)));
        let unique: BTreeSet<usize> = found.iter().copied().collect();
        assert_eq!(unique.len(), found.len(), "a row came out twice");
        for i in before.keys().filter(|i| model.live.contains_key(i)) {
            assert!(unique.contains(i), "row {i} is lost, after {taken}");
        }
    }
}

#[test]
fn interrupts_end_operations() {
    let model = Model::new(Metric::L2, 200);
    let index = Index::open(&model.store).unwrap();
    model.store.interrupt_after(3);
    let mut search = Search::new(&index, &[0.5; DIM], &Options::default()).unwrap();
    let result = search.next(&model.store, &index);
    assert!(matches!(result, Err(AccessError::Store(MemError::Interrupted))));
}

#[test]
fn a_check_looks_for_interrupts_also_behind_the_last_page() {
    const ROWS: usize = 200;
    let model = Model::new(Metric::L2, ROWS);
    // Once for each page, and again for each of them on the way through the graph.
    let pages = u64::from(model.store.block_count().unwrap());
    for checks in [pages / 2, pages + pages / 2] {
        model.store.interrupt_after(checks);
        let result = check(&model.store, |_, _| ());
        assert!(matches!(result, Err(AccessError::Store(MemError::Interrupted))), "after {checks}");
    }
}
