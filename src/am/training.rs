//! When an index that was created empty learns from its first rows, and who waits for that.
//!
//! A training writes the index again after its pages (`imgvec_ann::graph::train`). Searches go on meanwhile; whoever changes the
//! index must not. A heavy lock on page 0 sees to that, as for an index that waits for its first row: inserts and VACUUM share
//! it for as long as the index may be trained one day, which is up to a thousand rows, and a training has it alone. It is taken
//! only if that takes no waiting: else the next insert tries.

use super::cache;
use super::insert;
use super::threads::BuildThreads;
use crate::error::OrRaise;
use crate::error::index::damage;
use crate::fault;
use crate::storage::{Pages, Relation};
use imgvec_ann::graph::train::{self, Trained};
use pgrx::pg_sys;
use std::thread::panicking;

/// The lock that keeps an index from being trained. After an error the server releases it.
pub struct Untrained<'a>(Relation<'a>);

const SHARED: pg_sys::LOCKMODE = pg_sys::ShareLock as pg_sys::LOCKMODE;
const ALONE: pg_sys::LOCKMODE = pg_sys::ExclusiveLock as pg_sys::LOCKMODE;

/// Keeps an index as it is until what is answered goes; `None` if it will never be trained.
pub fn keep_off<'a>(pages: &Pages<'a>) -> Option<Untrained<'a>> {
    if !train::is_trainable(cache::open(pages).meta()) {
        return None;
    }
    let relation = pages.relation();
    fault::point("lock the first page");
    // SAFETY: an open relation.
    unsafe { pg_sys::LockPage(relation.as_raw(), 0, SHARED) };
    Some(Untrained(relation))
}

impl Drop for Untrained<'_> {
    fn drop(&mut self) {
        if !panicking() {
            // SAFETY: locked by us.
            unsafe { pg_sys::UnlockPage(self.0.as_raw(), 0, SHARED) };
        }
    }
}

/// Trains an index that has become due, unless others work on it.
pub fn train(pages: &Pages) {
    let relation = pages.relation();
    fault::point("lock the first page alone");
    // SAFETY: an open relation.
    if !unsafe { pg_sys::ConditionalLockPage(relation.as_raw(), 0, ALONE) } {
        return;
    }
    let done = train::train(pages, &BuildThreads::single(), &mut insert::random());
    let done = done.map_err(|error| damage(relation, error)).or_raise();
    fault::point("return from a training");
    // SAFETY: locked above; after an error the server releases it.
    unsafe { pg_sys::UnlockPage(relation.as_raw(), 0, ALONE) };
    if done == Trained::Cancelled {
        pgrx::check_for_interrupts!();
    }
}
