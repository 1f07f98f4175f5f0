//! What scans cost in this session, index by index: the view `ann_scan_stats`.

use crate::server::version;
use crate::storage::Relation;
use imgvec_ann::graph::walk::Stats;
use lru::LruCache;
use pgrx::pg_sys;
use std::cell::RefCell;
use std::num::NonZeroUsize;

/// Indexes remembered.
const KEPT: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

/// Sums over the scans of one index.
#[derive(Clone, Copy, Default)]
pub struct ScanStats {
    pub scans: u64,
    /// Scans that ended at imgvec.max_scan_rows.
    pub limited: u64,
    /// Rows that the executor fetched from the table.
    pub rows: u64,
    pub walk: Stats,
}

thread_local! {
    static SCANS: RefCell<LruCache<u32, ScanStats>> = RefCell::new(LruCache::new(KEPT));
}

fn update(index: Relation, change: impl FnOnce(&mut ScanStats)) {
    SCANS.with_borrow_mut(|scans| {
        change(scans.get_or_insert_mut(index.oid().to_u32(), ScanStats::default));
    });
}

/// A scan begins: counted here and in the server's own statistics.
pub fn count_scan(index: Relation) {
    update(index, |stats| stats.scans += 1);
    // SAFETY: an open index.
    unsafe { version::count_index_scan(index.as_raw()) }
}

/// A scan reached its limit.
pub fn count_limited(index: Relation) {
    update(index, |stats| stats.limited += 1);
}

/// A scan ended.
pub fn add(index: Relation, walk: &Stats, rows: u64) {
    update(index, |stats| {
        stats.rows += rows;
        stats.walk.hops += walk.hops;
        stats.walk.estimates += walk.estimates;
        stats.walk.late += walk.late;
        stats.walk.stale_links += walk.stale_links;
        stats.walk.swept_pages += walk.swept_pages;
    });
}

/// All indexes scanned in this session, by oid.
pub fn all() -> Vec<(pg_sys::Oid, ScanStats)> {
    let mut all: Vec<_> = SCANS
        .with_borrow(|scans| scans.iter().map(|(&oid, &stats)| (pg_sys::Oid::from(oid), stats)).collect());
    all.sort_by_key(|(oid, _)| oid.to_u32());
    all
}
