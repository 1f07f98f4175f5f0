//! Opened indexes: what a backend keeps of the metapage and the entry table from scan to scan.

use crate::error::OrRaise;
use crate::error::index::{damage, no_pages};
use crate::storage::{Identity, Pages};
use imgvec_ann::Index;
use imgvec_ann::store::PageStore;
use lru::LruCache;
use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::rc::Rc;

/// Indexes kept. One takes 100 kB to 6 MB, by its number of entries.
const KEPT: NonZeroUsize = NonZeroUsize::new(64).expect("not zero");

thread_local! {
    static OPENED: RefCell<LruCache<Identity, Rc<Index>>> = RefCell::new(LruCache::new(KEPT));
}

/// The index for a search, read anew if it changed much since it was kept: costs one page read otherwise.
pub fn open(pages: &Pages) -> Rc<Index> {
    let identity = pages.relation().identity();
    // Not borrowed while pages are read: an error would leave the cell borrowed.
    let kept = OPENED.with_borrow_mut(|opened| opened.pop(&identity));
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
    let kept = OPENED.with_borrow_mut(|opened| opened.pop(&identity));
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
    let _evicted = OPENED.with_borrow_mut(|opened| opened.push(identity, index));
}
