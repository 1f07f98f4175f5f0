//! An index that waits for its first row to tell the number of dimensions.
//!
//! The type of its column does not: `imgvec`, not `imgvec(n)`. A build takes the number from the rows; where none has a
//! vector there is nothing to build yet, and the file stays empty. A row that comes later writes the first pages.

use super::build::{empty_pages, new_geometry};
use super::opclass::OpClass;
use crate::storage::{Mode, Pages, Relation};
use imgvec_ann::layout::BlockNumber;
use imgvec_ann::store::{Change as _, PageStore as _};
use pgrx::pg_sys;

/// Dimensions that the type of the index column declares.
pub fn declared_dim(index: Relation) -> Option<usize> {
    usize::try_from(index.type_modifier(0)).ok().filter(|&dim| dim > 0)
}

/// Whether an index has no pages because no row has come yet. A first page of zeros is what a writer left that died
/// before it could log what it wrote.
pub fn is_waiting(index: Relation) -> bool {
    if declared_dim(index).is_some() {
        return false;
    }
    let pages = Pages::new(index, Mode::Normal);
    let Ok(count) = pages.block_count();
    count == 0 || {
        let Ok(first) = pages.read(BlockNumber(0));
        first.iter().all(|&byte| byte == 0)
    }
}

/// Writes the first pages of a waiting index, for vectors of `dim` dimensions, unless another session did so meanwhile.
pub fn begin(index: Relation, dim: usize) {
    let metric = OpClass::of(index).metric;
    let geometry = new_geometry(index, dim);
    let lock = pg_sys::ExclusiveLock as pg_sys::LOCKMODE;
    // SAFETY: an open relation. After an error the server releases the lock with the transaction.
    unsafe { pg_sys::LockPage(index.as_raw(), 0, lock) };
    if is_waiting(index) {
        let first = empty_pages(index, metric, geometry);
        let pages = Pages::new(index, Mode::Normal);
        let Ok(there) = pages.block_count();
        let Ok(mut change) = pages.change();
        for (block, content) in (0..).zip(&first) {
            let block = if block < there {
                BlockNumber(block)
            } else {
                let Ok(block) = change.extend();
                block
            };
            let Ok(page) = change.page(block);
            *page = **content;
        }
        let Ok(()) = change.commit();
    }
    // SAFETY: locked above.
    unsafe { pg_sys::UnlockPage(index.as_raw(), 0, lock) };
}
