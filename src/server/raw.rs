//! Calls that pgrx does not guard: functions of the server that it does not bind, and the server's callbacks.
//!
//! An error of the server is a `longjmp`. Over a Rust frame with something to drop it is undefined behavior, so each
//! call that can raise an error goes through pgrx's boundary, which makes a panic of it. `tests/extern_calls.rs` keeps
//! such declarations and calls in this file; those that raise nothing may live elsewhere and are listed there.

use pgrx::pg_sys;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;
use std::ffi::c_void;

mod unguarded {
    use pgrx::pg_sys;

    unsafe extern "C-unwind" {
        // access/amvalidate.h. Looks into catalog caches, and so may raise any error.
        pub fn opfamily_can_sort_type(family: pg_sys::Oid, data_type: pg_sys::Oid) -> bool;
    }
}

/// Whether a btree operator family sorts a type.
pub fn opfamily_can_sort_type(family: pg_sys::Oid, data_type: pg_sys::Oid) -> bool {
    // SAFETY: looks up two oids, which may be any; the closure holds nothing that needs a drop.
    unsafe { pg_guard_ffi_boundary(|| unguarded::opfamily_can_sort_type(family, data_type)) }
}

/// What tells a vacuum which rows are dead.
#[derive(Clone, Copy)]
pub struct DeadRows {
    callback: unsafe extern "C-unwind" fn(pg_sys::ItemPointer, *mut c_void) -> bool,
    state: *mut c_void,
}

impl DeadRows {
    /// # Safety
    /// The two that the server passed to `ambulkdelete`; to be used during that call.
    pub unsafe fn new(callback: pg_sys::IndexBulkDeleteCallback, state: *mut c_void) -> Self {
        Self { callback: callback.expect("the server passes a callback"), state }
    }

    /// Whether the row is to be forgotten.
    pub fn contains(self, block: u32, offset: u16) -> bool {
        let mut pointer = pg_sys::ItemPointerData::default();
        pgrx::itemptr::item_pointer_set_all(&mut pointer, block, offset);
        // SAFETY: the server's callback with its own state, by the contract of `new`; the closure holds nothing that
        // needs a drop.
        unsafe { pg_guard_ffi_boundary(|| (self.callback)(&raw mut pointer, self.state)) }
    }
}

/// A hook on paths that the planner has made for a step above scans and joins.
pub type UpperPathsHook = pg_sys::create_upper_paths_hook_type;
/// A hook on the start of a query's execution.
pub type ExecutorStartHook = pg_sys::ExecutorStart_hook_type;

/// Sets the two hooks; answers those that were set before, which ours must call.
pub fn install(paths: UpperPathsHook, start: ExecutorStartHook) -> (UpperPathsHook, ExecutorStartHook) {
    // SAFETY: hooks of a process with one thread that runs SQL.
    unsafe {
        let before = (pg_sys::create_upper_paths_hook, pg_sys::ExecutorStart_hook);
        (pg_sys::create_upper_paths_hook, pg_sys::ExecutorStart_hook) = (paths, start);
        before
    }
}

/// Calls the next hook, if there is one.
///
/// # Safety
/// The arguments that the planner passed to ours.
pub unsafe fn upper_paths(
    next: UpperPathsHook,
    root: *mut pg_sys::PlannerInfo,
    stage: pg_sys::UpperRelationKind::Type,
    input: *mut pg_sys::RelOptInfo,
    output: *mut pg_sys::RelOptInfo,
    extra: *mut c_void,
) {
    if let Some(next) = next {
        // SAFETY: by contract; the closure holds nothing that needs a drop.
        unsafe { pg_guard_ffi_boundary(|| next(root, stage, input, output, extra)) }
    }
}

/// Calls the next hook, or what it would end in.
///
/// # Safety
/// The arguments that the server passed to ours.
pub unsafe fn executor_start(next: ExecutorStartHook, query: *mut pg_sys::QueryDesc, flags: std::ffi::c_int) {
    match next {
        // SAFETY: by contract; the closure holds nothing that needs a drop.
        Some(next) => unsafe { pg_guard_ffi_boundary(|| next(query, flags)) },
        // SAFETY: by contract.
        None => unsafe { pg_sys::standard_ExecutorStart(query, flags) },
    }
}
