//! Builds beyond the memory limit: as good as those in memory, whatever the data; cancelled and failing ones end.

mod common;

use common::{Data, Normal, build, build_within, builder_within, clustered, exact, manifold, row, search};
use imgvec_ann::build::executor::Threads;
use imgvec_ann::build::spill::{MemorySpill, Spill, SpillFile};
use imgvec_ann::build::{BuildError, Phase, Report};
use imgvec_ann::graph::check::check;
use imgvec_ann::layout::BlockNumber;
use imgvec_ann::store::PageStore;
use imgvec_ann::store::mem::MemStore;
use imgvec_ann::{Index, Metric};
use std::cell::Cell;
use std::collections::HashSet;
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The limit within which so many rows of up to 128 dimensions fit, beside the leaves of two workers.
fn memory_for(rows: usize) -> usize {
    rows * 970 + 2 * 1000 * (4 * 1000 + 128)
}

/// Recall@10; ties count by distance.
fn recall(store: &MemStore, data: &Data, metric: Metric, ef: usize) -> f64 {
    let index = Index::open(store).unwrap();
    let mut hits = 0;
    for query in &data.queries {
        let distance = |&i: &usize| common::distance(metric, &data.rows[i], query);
        let last = distance(exact(metric, &data.rows, query, 10).last().unwrap());
        let (found, _, _) = search(store, &index, metric, &data.rows, query, 10, ef);
        hits += found.iter().filter(|i| distance(i) <= last).count();
    }
    hits as f64 / (10 * data.queries.len()) as f64
}

fn assert_sound(store: &MemStore, rows: usize, report: Report) {
    let mut unique: HashSet<usize> = HashSet::new();
    let checked = check(store, |tid, _| _ = unique.insert(row(tid))).unwrap();
    assert_eq!((checked.problems, checked.unreachable, checked.live), (vec![], 0, report.nodes));
    assert_eq!((checked.rows, unique.len(), report.rows), (rows as u64, rows, rows as u64));
}

/// Builds with and without enough memory, and compares.
fn assert_as_good(data: &Data, metric: Metric, capacity: usize) {
    let (memory, in_memory) = build(metric, &data.rows, data.dim, 2);
    let builder = builder_within(memory_for(capacity), metric, &data.rows, data.dim);
    assert!(builder.memory_wanted().is_some(), "all fits, and nothing is tested");
    let (files, from_files) = build_within(memory_for(capacity), metric, &data.rows, data.dim, 2);
    assert_sound(&files, data.rows.len(), from_files);
    assert_eq!(from_files.nodes, in_memory.nodes, "as many different vectors");
    for ef in [40, 80] {
        let (wanted, got) = (recall(&memory, data, metric, ef), recall(&files, data, metric, ef));
        println!("{}, ef {ef}: {wanted:.4} in memory, {got:.4} from files; {from_files:?}", data.name);
        assert!(got >= wanted - 0.01, "{}: recall {wanted} in memory, {got} from files", data.name);
    }
}

#[test]
fn clusters_are_as_good_as_in_memory() {
    assert_as_good(&clustered(128, 20_000, 100, 2500, 5, false), Metric::Cosine, 5000);
}

#[test]
fn cross_modal_queries_are_as_good_as_in_memory() {
    assert_as_good(&clustered(128, 20_000, 200, 400, 6, true), Metric::Cosine, 5000);
}

#[test]
fn a_manifold_is_as_good_as_in_memory() {
    let data = manifold(96, 20_000, 1000, 16, 7);
    assert_as_good(&data, Metric::L2, 5000);
    assert_as_good(&data, Metric::InnerProduct, 5000);
}

#[test]
fn many_small_shards_divided_twice_are_nearly_as_good() {
    // 64 shards at most are made of one, and 1,000 rows are the least limit.
    let data = manifold(24, 60_000, 100, 8, 8);
    let (store, report) = build_within(0, Metric::L2, &data.rows, 24, 2);
    assert_sound(&store, 60_000, report);
    let recall = recall(&store, &data, Metric::L2, 80);
    assert!(recall >= 0.95, "recall {recall}");
}

#[test]
fn copies_far_apart_in_the_table_share_a_node() {
    let mut data = manifold(64, 40_000, 100, 16, 9);
    common::generate::duplicate(&mut data.rows, 0.5, 3);
    let copy = data.rows[0].clone();
    for i in (0..40_000).step_by(4) {
        data.rows[i].clone_from(&copy);
    }
    assert_as_good(&data, Metric::L2, 5000);
}

#[test]
fn rows_that_no_leader_tells_apart_are_dealt_out() {
    // All at the same distance from each other, nearly: two ones among zeros.
    let mut rows = Vec::new();
    for i in 0..64 {
        for j in 0..i {
            let mut row = vec![0.0; 64];
            (row[i], row[j]) = (1.0, 1.0);
            rows.push(row);
        }
    }
    // And exact copies of one row, many more than fit.
    rows.extend(vec![vec![0.5; 64]; 30_000]);
    let (store, report) = build_within(0, Metric::L2, &rows, 64, 2);
    assert_sound(&store, rows.len(), report);
    assert_eq!(report.nodes, 64 * 63 / 2 + 1);
}

#[test]
fn a_build_from_files_does_not_depend_on_the_number_of_threads() {
    let data = clustered(32, 6000, 0, 100, 3, false);
    let (one, _) = build_within(0, Metric::Cosine, &data.rows, 32, 1);
    let (three, _) = build_within(0, Metric::Cosine, &data.rows, 32, 3);
    let pages = one.block_count().unwrap();
    assert_eq!(three.block_count().unwrap(), pages);
    for block in (0..pages).map(BlockNumber) {
        assert!(*one.read(block).unwrap() == *three.read(block).unwrap(), "{block:?}");
    }
}

#[test]
fn the_builder_says_what_would_do() {
    let mut normal = Normal::new(1);
    let rows: Vec<Vec<f32>> = (0..3000).map(|_| normal.vector(64, 1.0)).collect();
    let wanted = builder_within(0, Metric::L2, &rows, 64).memory_wanted().expect("more than 1,000 rows");
    let wanted = usize::try_from(wanted).unwrap();
    assert_eq!(builder_within(wanted, Metric::L2, &rows, 64).memory_wanted(), None);
    let less = wanted / 3000 * 2999;
    assert!(builder_within(less, Metric::L2, &rows, 64).memory_wanted().is_some());
}

#[test]
fn every_phase_is_cancelled() {
    let data = clustered(32, 20_000, 0, 100, 3, false);
    for phase in [Phase::Shard, Phase::Partition, Phase::Leaves, Phase::Prune, Phase::Connect, Phase::Write] {
        let builder = builder_within(memory_for(4000), Metric::Cosine, &data.rows, 32);
        let (cancel, mut last) = (AtomicBool::new(false), None);
        let mut progress = |next| {
            last = Some(next);
            cancel.fetch_or(next == phase, Ordering::Relaxed);
        };
        let result = builder.finish(&Threads::new(2, &cancel), &mut MemStore::new(), &mut progress);
        assert!(matches!(result, Err(BuildError::Cancelled)), "{phase:?}: {result:?}");
        assert_eq!(last, Some(phase), "ended in the next phase only");
    }
}

/// Files of which every use beyond the first so many fails.
struct FullDisk(Rc<Cell<usize>>);

struct FullFile(Box<dyn SpillFile>, Rc<Cell<usize>>);

fn use_disk(left: &Cell<usize>) -> io::Result<()> {
    left.set(left.get().checked_sub(1).ok_or(io::ErrorKind::StorageFull)?);
    Ok(())
}

impl Spill for FullDisk {
    fn create(&mut self) -> io::Result<Box<dyn SpillFile>> {
        use_disk(&self.0)?;
        Ok(Box::new(FullFile(MemorySpill.create()?, Rc::clone(&self.0))))
    }
}

impl SpillFile for FullFile {
    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        use_disk(&self.1)?;
        self.0.write_at(at, bytes)
    }

    fn read_at(&mut self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        use_disk(&self.1)?;
        self.0.read_at(at, bytes)
    }
}

#[test]
fn a_full_disk_is_an_error() {
    let data = clustered(32, 3000, 0, 100, 3, false);
    let (cancel, mut failed) = (AtomicBool::new(false), 0);
    for uses in (0..).step_by(997) {
        let builder = builder_within(0, Metric::Cosine, &[], 32);
        let mut builder = builder.spill_to(Box::new(FullDisk(Rc::new(Cell::new(uses)))));
        let added: Result<(), _> = data
            .rows
            .iter()
            .enumerate()
            .try_for_each(|(i, row)| builder.add(row, common::tid(i)).map(|_| ()));
        if added.is_err() {
            failed += 1;
            continue;
        }
        match builder.finish(&Threads::new(2, &cancel), &mut MemStore::new(), &mut |_| ()) {
            Ok(_) => break,
            Err(BuildError::Spill(error)) => assert_eq!(error.kind(), io::ErrorKind::StorageFull),
            Err(error) => panic!("{error}"),
        }
        failed += 1;
    }
    assert!(failed >= 10, "{failed} builds failed");
}
