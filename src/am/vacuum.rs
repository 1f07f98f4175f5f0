//! Taking dead rows out, in the two steps of the server's vacuum.

use super::{cache, insert, training, waiting};
use crate::error::OrRaise;
use crate::error::index::{damage, no_pages};
use crate::fault;
use crate::server::raw::DeadRows;
use crate::storage::{Mode, Pages, Relation};
use imgvec_ann::graph::vacuum;
use imgvec_ann::store::PageStore;
use pgrx::{pg_guard, pg_sys};

/// Forgets the rows that the callback names. May be called several times in one vacuum.
#[pg_guard]
pub unsafe extern "C-unwind" fn ambulkdelete(
    info: *mut pg_sys::IndexVacuumInfo,
    stats: *mut pg_sys::IndexBulkDeleteResult,
    callback: pg_sys::IndexBulkDeleteCallback,
    state: *mut std::ffi::c_void,
) -> *mut pg_sys::IndexBulkDeleteResult {
    // SAFETY: the server passes an open index, its own statistics or NULL, and a callback for tids.
    unsafe {
        let relation = Relation::from_raw((*info).index);
        let dead = DeadRows::new(callback, state);
        let pages = Pages::new(relation, Mode::Vacuum((*info).strategy));
        if waiting::is_waiting(relation) {
            return or_new(stats);
        }
        if pages.block_count() == Ok(0) {
            // There is nothing to remove, and the table's vacuum must not fail for it.
            no_pages(relation).warn();
            return or_new(stats);
        }
        let _untrained = training::keep_off(&pages);
        let index = cache::open(&pages);
        let done = vacuum::delete(&pages, &index, |tid| {
            fault::point("ask whether a row is dead");
            dead.contains(tid.block, tid.offset)
        })
        .map_err(|error| damage(relation, error))
        .or_raise();
        fault::point("return what was removed");
        let stats = &mut *or_new(stats);
        #[allow(clippy::cast_precision_loss, reason = "statistics are floats")]
        {
            stats.num_index_tuples = done.rows as f64;
            stats.tuples_removed += done.removed as f64;
        }
        stats.estimated_count = false;
        stats.num_pages = pages.block_count().unwrap_or_else(|never| match never {});
        stats
    }
}

/// Repairs the graph round what died and frees its slots. Without deletions there is nothing to do.
#[pg_guard]
pub unsafe extern "C-unwind" fn amvacuumcleanup(
    info: *mut pg_sys::IndexVacuumInfo,
    stats: *mut pg_sys::IndexBulkDeleteResult,
) -> *mut pg_sys::IndexBulkDeleteResult {
    // SAFETY: as above.
    unsafe {
        if (*info).analyze_only || stats.is_null() {
            return stats;
        }
        let relation = Relation::from_raw((*info).index);
        let pages = Pages::new(relation, Mode::Vacuum((*info).strategy));
        if pages.block_count() == Ok(0) || waiting::is_waiting(relation) {
            return stats;
        }
        let _untrained = training::keep_off(&pages);
        let mut random = insert::random();
        let done = cache::with_mut(&pages, |index| vacuum::cleanup(&pages, index, &mut random));
        done.map_err(|error| damage(relation, error)).or_raise();
        fault::point("vacuum the free-space map");
        pg_sys::IndexFreeSpaceMapVacuum(relation.as_raw());
        (*stats).num_pages = pages.block_count().unwrap_or_else(|never| match never {});
        stats
    }
}

/// # Safety
/// `stats` is NULL or what an earlier call returned.
unsafe fn or_new(stats: *mut pg_sys::IndexBulkDeleteResult) -> *mut pg_sys::IndexBulkDeleteResult {
    if stats.is_null() {
        // SAFETY: zeros are valid statistics.
        unsafe { pg_sys::palloc0(size_of::<pg_sys::IndexBulkDeleteResult>()).cast() }
    } else {
        stats
    }
}
