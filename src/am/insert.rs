//! One new row.

use super::keys::{KeyColumns, TableRow};
use super::opclass::{self, OpClass};
use super::{cache, training, waiting};
use crate::error::OrRaise;
use crate::error::index::{damage, vector as bad_vector};
use crate::fault;
use crate::storage::{Mode, Pages, Relation};
use imgvec_ann::graph::insert::{self, InsertError};
use imgvec_ann::graph::train;
use imgvec_ann::layout::HeapTid;
use imgvec_ann::random::SplitMix64;
use pgrx::{pg_guard, pg_sys};
use std::cell::RefCell;

thread_local! {
    /// Decides which nodes become entries; nothing else depends on it.
    static RANDOM: RefCell<Option<SplitMix64>> = const { RefCell::new(None) };
}

/// A generator that differs from backend to backend.
pub fn random() -> SplitMix64 {
    RANDOM.with_borrow_mut(|random| {
        SplitMix64::new(random.get_or_insert_with(|| SplitMix64::new(seed())).next_u64())
    })
}

/// A number that nobody can foresee.
pub fn seed() -> u64 {
    let mut bytes = [0u8; 8];
    // SAFETY: writes as many bytes as told. Without randomness zeros do as well: nothing secret depends on it.
    unsafe { pg_sys::pg_strong_random(bytes.as_mut_ptr().cast(), bytes.len()) };
    u64::from_le_bytes(bytes)
}

#[allow(clippy::too_many_arguments, reason = "the server's signature")]
#[pg_guard]
pub unsafe extern "C-unwind" fn aminsert(
    index: pg_sys::Relation,
    values: *mut pg_sys::Datum,
    is_null: *mut bool,
    heap_tid: pg_sys::ItemPointer,
    _heap: pg_sys::Relation,
    _check_unique: pg_sys::IndexUniqueCheck::Type,
    _index_unchanged: bool,
    _info: *mut pg_sys::IndexInfo,
) -> bool {
    fault::point("insert a row");
    // SAFETY: the server passes an open index, a value for each column and a tid.
    unsafe {
        let index = Relation::from_raw(index);
        if let Some(vector) = opclass::vector(*values, *is_null, OpClass::of(index).elements) {
            let keys = KeyColumns::of(index).keys(values, is_null);
            insert(index, &TableRow { vector: &vector, keys: &keys, tid: tid(heap_tid) });
        }
    }
    fault::point("return from an insert");
    // Uniqueness is not ours to tell.
    false
}

/// Inserts a row; a vector of zeros under cosine is left out.
pub fn insert(relation: Relation, row: &TableRow) {
    if waiting::is_waiting(relation) {
        waiting::begin(relation, row.vector.len());
    }
    let pages = Pages::new(relation, Mode::Normal);
    let mut random = random();
    let untrained = training::keep_off(&pages);
    let (result, is_due) = cache::with_mut(&pages, |index| {
        let result = insert::insert_with_keys(&pages, index, row.vector, row.keys, row.tid, &mut random);
        (result, train::is_due(index.meta()))
    });
    result
        .map_err(|error| match error {
            InsertError::Vector(error) => bad_vector(relation, error),
            InsertError::Access(error) => damage(relation, error),
        })
        .or_raise();
    if untrained.is_some() && is_due {
        drop(untrained);
        training::train(&pages);
    }
}

/// # Safety
/// `pointer` points to a valid item pointer.
pub unsafe fn tid(pointer: pg_sys::ItemPointer) -> HeapTid {
    // SAFETY: by contract.
    let (block, offset) = pgrx::itemptr::item_pointer_get_both(unsafe { *pointer });
    HeapTid { block, offset }
}
