//! Pages whose bits are flipped, whose bytes are overwritten, or that stand in another's place: every operation ends, with
//! an error or without, after a bounded number of page reads, and never panics.
//!
//! `IMGVEC_FUZZ_CASES` sets the number of damaged indexes (default 300), `IMGVEC_FUZZ_SEED` the first of their seeds; the
//! seed of a failure is printed, and as IMGVEC_FUZZ_SEED with one case repeats it.

mod common;

use common::{Normal, build, row, tid};
use imgvec_ann::graph::check::{self, check};
use imgvec_ann::graph::insert::insert;
use imgvec_ann::graph::search::{Options, Search};
use imgvec_ann::graph::vacuum;
use imgvec_ann::layout::{BlockNumber, PAGE_BYTES};
use imgvec_ann::random::SplitMix64;
use imgvec_ann::store::mem::{MemError, MemStore};
use imgvec_ann::store::{Change, PageStore};
use imgvec_ann::{AccessError, Index, Metric};
use std::panic::{AssertUnwindSafe, catch_unwind};

const DIM: usize = 24;
const ROWS: usize = 150;
/// A damaged chain may be followed for as long as the index has pages and slots, and again for each row; not for ever.
const MOST_READS: u64 = 200_000;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn below(random: &mut SplitMix64, bound: usize) -> usize {
    usize::try_from(random.next_u64() % bound as u64).unwrap()
}

/// A built index with a few inserted rows and some that a vacuum took out.
fn sound(metric: Metric) -> MemStore {
    let mut normal = Normal::new(5);
    let rows: Vec<Vec<f32>> = (0..ROWS).map(|_| normal.vector(DIM, 1.0)).collect();
    let (store, _) = build(metric, &rows, DIM, 1);
    let mut index = Index::open(&store).unwrap();
    let mut random = SplitMix64::new(3);
    for i in ROWS..ROWS + 20 {
        // Copies, so that there are chains of rows.
        insert(&store, &mut index, &rows[i % 3], tid(i), &mut random).unwrap();
    }
    vacuum::delete(&store, &index, |t| row(t) % 17 == 5).unwrap();
    vacuum::cleanup(&store, &mut index, &mut random).unwrap();
    vacuum::delete(&store, &index, |t| row(t) % 19 == 6).unwrap();
    store
}

/// Changes something in one page.
fn damage(store: &MemStore, random: &mut SplitMix64) -> Result<(), MemError> {
    let blocks = usize::try_from(store.block_count()?).unwrap();
    let block = |random: &mut SplitMix64| {
        // Half of the time the first pages, on which everything depends.
        let among = if random.next_u64() & 1 == 0 { blocks.min(3) } else { blocks };
        BlockNumber(u32::try_from(below(random, among)).unwrap())
    };
    let target = block(random);
    let other = *store.read(block(random))?;
    let mut change = store.change()?;
    let page = change.page(target)?;
    // Half of the time where headers are.
    let length = if random.next_u64() & 1 == 0 { 128 } else { PAGE_BYTES };
    match random.next_u64() % 8 {
        0 => page.copy_from_slice(&other),
        1 => page.fill(0),
        2 => page.fill(0xff),
        3 => {
            let from = below(random, length);
            let to = (from + 1 + below(random, 64)).min(PAGE_BYTES);
            page[from..to].copy_from_slice(&other[from..to]);
        }
        4 => {
            let at = below(random, length);
            page[at] = [0, 1, 0x7f, 0x80, 0xff][below(random, 5)];
        }
        _ => {
            let bit = below(random, 8 * length);
            page[bit / 8] ^= 1 << (bit % 8);
        }
    }
    change.commit()
}

/// Does everything that can be done with an index. What it answers is worth nothing; that it ends is.
fn use_it(store: &MemStore) {
    let ends = |what: &str| {
        let reads = store.reads();
        assert!(reads < MOST_READS, "{what}: {reads} pages were read");
    };
    // Errors of the storage that mean a broken rule of locking are ours; a block beyond the end is the damage's.
    fn allowed<T>(what: &str, result: Result<T, AccessError<MemError>>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(AccessError::Store(error @ (MemError::LockOrder(_) | MemError::TooManyPages))) => {
                panic!("{what}: {error}")
            }
            Err(_) => None,
        }
    }
    let _ = allowed("check", check(store, |_, _| ()));
    ends("check");
    let _ = allowed("rows", check::rows(store, |_, _| ()));
    ends("rows");
    let Some(mut index) = allowed("open", Index::open(store)) else { return };
    let dim = index.space().geometry().dim();
    let vector = vec![0.5; dim];
    if let Ok(mut search) = Search::new(&index, &vector, &Options::default()) {
        while let Some(Some(_)) = allowed("search", search.next(store, &index)) {
            ends("search");
        }
    }
    ends("search");
    let mut random = SplitMix64::new(8);
    for i in 0..5 {
        use imgvec_ann::graph::insert::InsertError;
        match insert(store, &mut index, &vector, tid(1000 + i), &mut random) {
            Err(InsertError::Access(error)) => _ = allowed::<()>("insert", Err(error)),
            Ok(_) | Err(InsertError::Vector(_)) => {}
        }
        ends("insert");
    }
    let _ = allowed("delete", vacuum::delete(store, &index, |t| t.offset % 3 == 0));
    ends("delete");
    let _ = allowed("cleanup", vacuum::cleanup(store, &mut index, &mut random));
    ends("cleanup");
}

#[test]
fn damaged_pages_neither_panic_nor_hang() {
    let (first, cases) = (number("IMGVEC_FUZZ_SEED", 1), number("IMGVEC_FUZZ_CASES", 300));
    let mut failures = Vec::new();
    for seed in first..first + cases {
        let mut random = SplitMix64::new(seed);
        let metric = [Metric::L2, Metric::Cosine, Metric::InnerProduct][below(&mut random, 3)];
        let store = sound(metric);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            for _ in 0..=below(&mut random, 6) {
                damage(&store, &mut random).unwrap();
            }
            use_it(&store);
        }));
        if outcome.is_err() {
            failures.push(seed);
        }
    }
    assert!(failures.is_empty(), "seeds that failed: {failures:?}");
}
