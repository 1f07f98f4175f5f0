//! Opened indexes: what a backend keeps of the metapage and the entry table from scan to scan.

use crate::error::OrRaise;
use crate::error::index::{damage, no_pages};
use crate::storage::{Identity, Pages};
use imgvec_ann::Index;
use imgvec_ann::store::PageStore;
use lru::LruCache;
use std::cell::RefCell;
use std::rc::Rc;

/// Memory of the indexes kept; the last used is kept whatever it takes. One takes 100 kB to 20 MB, by its entries and
/// dimensions.
const MOST_BYTES: usize = 64 << 20;

thread_local! {
    static OPENED: RefCell<Kept> = RefCell::new(Kept { indexes: LruCache::unbounded(), bytes: 0 });
}

/// Indexes, each with the memory that it took when it was put here.
struct Kept {
    indexes: LruCache<Identity, (Rc<Index>, usize)>,
    bytes: usize,
}

impl Kept {
    fn take(&mut self, identity: &Identity) -> Option<Rc<Index>> {
        let (index, bytes) = self.indexes.pop(identity)?;
        self.bytes -= bytes;
        Some(index)
    }

    /// Keeps an index; answers those that it takes the place of.
    fn put(&mut self, identity: Identity, index: Rc<Index>) -> Vec<Rc<Index>> {
        let bytes = index.memory_bytes();
        self.bytes += bytes;
        let mut gone = Vec::new();
        if let Some((_, (index, bytes))) = self.indexes.push(identity, (index, bytes)) {
            self.bytes -= bytes;
            gone.push(index);
        }
        while self.bytes > MOST_BYTES && self.indexes.len() > 1 {
            let Some((_, (index, bytes))) = self.indexes.pop_lru() else { break };
            self.bytes -= bytes;
            gone.push(index);
        }
        gone
    }
}

/// The index for a search, read again if it changed much since it was kept: costs one page read otherwise.
pub fn open(pages: &Pages) -> Rc<Index> {
    let identity = pages.relation().identity();
    // Not borrowed while pages are read: an error would leave the cell borrowed.
    let kept = OPENED.with_borrow_mut(|opened| opened.take(&identity));
    let index = match kept {
        Some(index) if is_searchable(&index, pages) => index,
        Some(mut index) => {
            // Copied if another scan still goes by it.
            let stale = Rc::make_mut(&mut index);
            stale.refresh_if_stale(pages).map_err(|error| damage(pages.relation(), error)).or_raise();
            index
        }
        None => read(pages),
    };
    keep(identity, Rc::clone(&index));
    index
}

/// Works on the index with `change`, which refreshes it.
pub fn with_mut<T>(pages: &Pages, change: impl FnOnce(&mut Index) -> T) -> T {
    let identity = pages.relation().identity();
    // Taken out, so that it need not be copied unless a scan holds it, and is forgotten on errors.
    let kept = OPENED.with_borrow_mut(|opened| opened.take(&identity));
    let mut index = kept.unwrap_or_else(|| read(pages));
    let result = change(Rc::make_mut(&mut index));
    keep(identity, index);
    result
}

fn is_searchable(index: &Index, pages: &Pages) -> bool {
    index.is_searchable(pages).map_err(|error| damage(pages.relation(), error)).or_raise()
}

/// Raises an error if an index has no pages at all.
pub fn require_pages(pages: &Pages) {
    if pages.block_count() == Ok(0) {
        no_pages(pages.relation()).raise();
    }
}

fn read(pages: &Pages) -> Rc<Index> {
    require_pages(pages);
    Rc::new(Index::open(pages).map_err(|error| damage(pages.relation(), error)).or_raise())
}

fn keep(identity: Identity, index: Rc<Index>) {
    let _gone = OPENED.with_borrow_mut(|opened| opened.put(identity, index));
}
