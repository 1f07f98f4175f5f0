//! Sessions that insert, search, delete and vacuum the same index at once, over pages with real locks.

mod common;

use common::{Normal, build, row, tid};
use imgvec_ann::graph::check::check;
use imgvec_ann::graph::insert::{Inserted, insert};
use imgvec_ann::graph::search::{Options, Search};
use imgvec_ann::graph::vacuum;
use imgvec_ann::layout::{BlockNumber, PAGE_BYTES, Page};
use imgvec_ann::random::SplitMix64;
use imgvec_ann::store::{Change, MAX_CHANGE_PAGES, PageStore};
use imgvec_ann::{Index, Metric};
use parking_lot::{ArcRwLockReadGuard, ArcRwLockWriteGuard, Mutex, RawRwLock, RwLock};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

type Latch = Arc<RwLock<Box<Page>>>;
type WriteGuard = ArcRwLockWriteGuard<RawRwLock, Box<Page>>;

/// Pages that many threads share, each under a lock of its own.
#[derive(Default)]
struct SharedStore {
    pages: RwLock<Vec<Latch>>,
    free: Mutex<BTreeSet<u32>>,
}

struct Held(ArcRwLockReadGuard<RawRwLock, Box<Page>>);

impl Deref for Held {
    type Target = Page;
    fn deref(&self) -> &Page {
        &self.0
    }
}

struct Locked<'a> {
    store: &'a SharedStore,
    pages: Vec<(u32, WriteGuard, Box<Page>)>,
}

impl SharedStore {
    fn latch(&self, block: BlockNumber) -> Latch {
        Arc::clone(&self.pages.read()[block.0 as usize])
    }
}

impl PageStore for SharedStore {
    type Error = Infallible;
    type Read<'a> = Held;
    type Change<'a> = Locked<'a>;

    fn block_count(&self) -> Result<u32, Infallible> {
        Ok(self.pages.read().len() as u32)
    }

    fn read(&self, block: BlockNumber) -> Result<Held, Infallible> {
        Ok(Held(self.latch(block).read_arc()))
    }

    fn prefetch(&self, _blocks: &[BlockNumber]) {}

    fn change(&self) -> Result<Locked<'_>, Infallible> {
        Ok(Locked { store: self, pages: Vec::new() })
    }

    fn check_interrupts(&self) -> Result<(), Infallible> {
        // Other threads get their turn in as many places as possible.
        thread::yield_now();
        Ok(())
    }

    fn free_block(&self) -> Option<BlockNumber> {
        self.free.lock().first().copied().map(BlockNumber)
    }

    fn record_free(&self, block: BlockNumber, free: bool) {
        let mut all = self.free.lock();
        if free {
            all.insert(block.0)
        } else {
            all.remove(&block.0)
        };
    }
}

impl Change for Locked<'_> {
    type Error = Infallible;

    fn page(&mut self, block: BlockNumber) -> Result<&mut Page, Infallible> {
        let at = match self.pages.iter().position(|(b, ..)| *b == block.0) {
            Some(at) => at,
            None => {
                assert!(self.pages.last().is_none_or(|(last, ..)| *last < block.0), "locks out of order");
                assert!(self.pages.len() < MAX_CHANGE_PAGES, "too many pages");
                let latch = self.store.latch(block).write_arc();
                let copy = latch.clone();
                self.pages.push((block.0, latch, copy));
                self.pages.len() - 1
            }
        };
        Ok(&mut self.pages[at].2)
    }

    fn extend(&mut self) -> Result<BlockNumber, Infallible> {
        let mut all = self.store.pages.write();
        let (block, latch) = (all.len() as u32, Latch::new(RwLock::new(Box::new([0; PAGE_BYTES]))));
        let lock = latch.write_arc();
        all.push(latch);
        self.pages.push((block, lock, Box::new([0; PAGE_BYTES])));
        Ok(BlockNumber(block))
    }

    fn commit(self) -> Result<(), Infallible> {
        for (_, mut page, copy) in self.pages {
            *page = copy;
        }
        Ok(())
    }
}

const DIM: usize = 12;
const BUILT: usize = 300;
const WRITERS: usize = 4;
const ROWS_EACH: usize = 400;
/// Far more than it takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the table knows.
#[derive(Default)]
struct Table {
    live: BTreeMap<usize, Vec<f32>>,
    /// Never deleted.
    lasting: BTreeSet<usize>,
    dead: BTreeSet<usize>,
}

fn write(store: &SharedStore, table: &Mutex<Table>, writer: usize) {
    let (mut normal, mut random) = (Normal::new(writer as u64), SplitMix64::new(writer as u64));
    let mut index = Index::open(store).unwrap();
    let copied = Normal::new(77).vector(DIM, 1.0);
    for i in 0..ROWS_EACH {
        let row = BUILT + i * WRITERS + writer;
        // One in four is a copy of one vector, in all sessions.
        let vector = if i % 4 == 0 { copied.clone() } else { normal.vector(DIM, 1.0) };
        let inserted = insert(store, &mut index, &vector, tid(row), &mut random).unwrap();
        assert_ne!(inserted, Inserted::NoDirection);
        let mut table = table.lock();
        table.live.insert(row, vector);
        if row.is_multiple_of(3) {
            table.lasting.insert(row);
        } else if i % 5 == 4 {
            let gone: Vec<usize> = table.live.keys().copied().filter(|r| r % 3 == 1).collect();
            for row in gone {
                table.live.remove(&row);
                table.dead.insert(row);
            }
        }
    }
}

/// Walks through the whole index: nothing twice, nothing missing, bounds in order.
fn read(store: &SharedStore, table: &Mutex<Table>, query: &[f32]) {
    let index = Index::open(store).unwrap();
    let expected = table.lock().lasting.clone();
    let mut search = Search::new(&index, query, &Options::default()).unwrap();
    let (mut found, mut bound) = (BTreeSet::new(), f64::NEG_INFINITY);
    while let Some(hit) = search.next(store, &index).unwrap() {
        assert!(found.insert(row(hit.tid)), "a row came out twice");
        assert!(hit.late || hit.lower_bound >= bound, "bounds descend");
        bound = hit.lower_bound;
    }
    let missing: Vec<&usize> = expected.difference(&found).collect();
    assert!(missing.is_empty(), "rows {missing:?} did not come out");
}

fn clean(store: &SharedStore, table: &Mutex<Table>, random: &mut SplitMix64) {
    let mut index = Index::open(store).unwrap();
    let dead = table.lock().dead.clone();
    vacuum::delete(store, &index, |tid| dead.contains(&row(tid))).unwrap();
    table.lock().dead.retain(|row| !dead.contains(row));
    vacuum::cleanup(store, &mut index, random).unwrap();
}

fn work() {
    let mut normal = Normal::new(1000);
    let rows: Vec<Vec<f32>> = (0..BUILT).map(|_| normal.vector(DIM, 1.0)).collect();
    let built = build(Metric::L2, &rows, DIM, 1).0;
    let store = SharedStore::default();
    for block in (0..built.block_count().unwrap()).map(BlockNumber) {
        store.pages.write().push(Latch::new(RwLock::new(Box::new(*built.read(block).unwrap()))));
    }
    let lasting = (0..BUILT).step_by(3).collect();
    let table =
        Mutex::new(Table { live: rows.into_iter().enumerate().collect(), lasting, ..Table::default() });
    let (writing, vacuums, reads) = (AtomicUsize::new(WRITERS), AtomicUsize::new(0), AtomicUsize::new(0));
    let goes_on = || writing.load(Ordering::SeqCst) > 0;
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (store, table, writing) = (&store, &table, &writing);
            scope.spawn(move || {
                write(store, table, writer);
                writing.fetch_sub(1, Ordering::SeqCst);
            });
        }
        scope.spawn(|| {
            let mut random = SplitMix64::new(5);
            while goes_on() {
                clean(&store, &table, &mut random);
                vacuums.fetch_add(1, Ordering::SeqCst);
            }
        });
        for reader in 0..2 {
            let (store, table, reads, goes_on) = (&store, &table, &reads, &goes_on);
            scope.spawn(move || {
                let mut normal = Normal::new(2000 + reader);
                while goes_on() {
                    read(store, table, &normal.vector(DIM, 1.0));
                    reads.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    let (vacuums, reads) = (vacuums.into_inner(), reads.into_inner());
    assert!(vacuums > 2 && reads > 2, "{vacuums} vacuums and {reads} walks met the writers");
    clean(&store, &table, &mut SplitMix64::new(6));
    let mut indexed: Vec<usize> = Vec::new();
    let report = check(&store, |tid, _| indexed.push(row(tid))).unwrap();
    assert_eq!((&report.problems, report.unreachable), (&vec![], 0));
    assert_eq!((report.dead, report.stale_edges), (0, 0));
    indexed.sort_unstable();
    assert_eq!(indexed, table.lock().live.keys().copied().collect::<Vec<_>>());
}

#[test]
fn sessions_that_insert_search_and_vacuum_at_once_lose_nothing() {
    let (done, finished) = mpsc::channel();
    let worker = thread::spawn(move || {
        work();
        done.send(()).unwrap();
    });
    match finished.recv_timeout(PATIENCE) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("deadlock: no end after {PATIENCE:?}"),
        _ => worker.join().unwrap(),
    }
}
