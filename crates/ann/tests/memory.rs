//! What a vacuum and a check hold of an index: bits for each node, and nothing that grows with links or rows.

mod common;

use common::{Normal, build, row};
use imgvec_ann::graph::{check, vacuum};
use imgvec_ann::random::SplitMix64;
use imgvec_ann::{Index, Metric};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Counts what is allocated, and the most that was at a time.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

#[allow(unsafe_code, reason = "the trait of an allocator")]
// SAFETY: hands everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        MOST.fetch_max(HELD.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: the caller's promises are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promises are the same.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most bytes that `work` held at a time, beyond those of its beginning, and its result.
fn peak<T>(work: impl FnOnce() -> T) -> (usize, T) {
    let before = HELD.load(Relaxed);
    MOST.store(before, Relaxed);
    let result = work();
    (MOST.load(Relaxed) - before, result)
}

// One test in this program: others beside it would be counted, too.
#[test]
fn a_node_costs_a_vacuum_and_a_check_less_than_a_byte() {
    const ROWS: usize = 40_000;
    const COPIES: usize = 15_000;
    const DIM: usize = 4;
    let mut normal = Normal::new(1);
    let mut vectors: Vec<Vec<f32>> = (0..ROWS).map(|_| normal.vector(DIM, 1.0)).collect();
    // Further rows of nodes, in cells.
    vectors.extend_from_within(..COPIES);
    let (store, report) = build(Metric::L2, &vectors, DIM, 2);
    let mut index = Index::open(&store).unwrap();
    // The entry table does not grow with the index beyond its limit; here it is the larger part.
    let (opened, _) = peak(|| Index::open(&store).unwrap());
    let fixed = opened * 2 + (64 << 10);
    let nodes = report.nodes as usize;
    assert!(nodes > ROWS - 100 && fixed < nodes * 200, "{nodes} nodes, {fixed} bytes for the entries");

    let (held, checked) = peak(|| check::check(&store, |_, _| ()).unwrap());
    eprintln!("check: {held} bytes, of them {fixed} fixed");
    assert_eq!((checked.rows as usize, checked.unreachable), (ROWS + COPIES, 0));
    assert!(held < fixed + nodes, "the check of {nodes} nodes held {held} bytes");

    // Nearly all die, and some live on by a further row alone.
    let is_dead = |tid| row(tid) < ROWS * 9 / 10;
    let (held, deleted) = peak(|| vacuum::delete(&store, &index, is_dead).unwrap());
    eprintln!("delete: {held} bytes");
    assert!(deleted.died as usize > ROWS / 2, "{deleted:?}");
    assert!(held < (16 << 10) + nodes, "a deletion from {nodes} nodes held {held} bytes");

    // Some of the nodes that live are remembered for the entry table.
    let (held, cleaned) = peak(|| vacuum::cleanup(&store, &mut index, &mut SplitMix64::new(1)).unwrap());
    eprintln!("cleanup: {held} bytes");
    assert_eq!(cleaned.freed, deleted.died);
    assert!(held < fixed + nodes, "a cleanup of {nodes} nodes held {held} bytes");
    assert_eq!(check::check(&store, |_, _| ()).unwrap().problems, []);
}
