//! Calls that pgrx does not guard: functions of the server that it does not bind, and the server's callbacks.
//!
//! An error of the server is a `longjmp`. It is undefined behavior if it jumps over a Rust frame that has something to drop. So each
//! call that can raise an error goes through pgrx's boundary, which turns the error into a panic. `tests/extern_calls.rs` keeps
//! such declarations and calls in this file. Calls that raise nothing may be elsewhere, and are listed in that test.

use pgrx::pg_sys;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;
use std::ffi::c_void;

mod unguarded {
    use pgrx::pg_sys;

    unsafe extern "C-unwind" {
        // access/amvalidate.h. Looks into catalog caches, and so may raise any error.
        pub fn opfamily_can_sort_type(family: pg_sys::Oid, data_type: pg_sys::Oid) -> bool;
        // utils/elog.h. Reads the code of the message that is being made.
        pub fn geterrcode() -> std::ffi::c_int;
        // Throws an error again, with all that belongs to it: jumps to whoever catches it.
        pub fn ReThrowError(error: *mut pg_sys::ErrorData) -> !;
        // catalog/partition.h. Reads the catalogs.
        pub fn get_partition_ancestors(relation: pg_sys::Oid) -> *mut pg_sys::List;
        // parser/parse_utilcmd.h. Reads the catalogs.
        pub fn generateClonedIndexStmt(
            table: *mut pg_sys::RangeVar,
            index: pg_sys::Relation,
            columns: *const pg_sys::AttrMap,
            constraint: *mut pg_sys::Oid,
        ) -> *mut pg_sys::IndexStmt;
        // windowapi.h. They read rows, which evaluates expressions, and allocate.
        pub fn WinGetPartitionLocalMemory(
            window: *mut pg_sys::WindowObjectData,
            bytes: usize,
        ) -> *mut std::ffi::c_void;
        pub fn WinGetCurrentPosition(window: *mut pg_sys::WindowObjectData) -> i64;
        pub fn WinGetPartitionRowCount(window: *mut pg_sys::WindowObjectData) -> i64;
        pub fn WinGetFuncArgInPartition(
            window: *mut pg_sys::WindowObjectData,
            argument: std::ffi::c_int,
            relative_position: std::ffi::c_int,
            seek_type: std::ffi::c_int,
            set_mark: bool,
            is_null: *mut bool,
            is_out: *mut bool,
        ) -> pg_sys::Datum;
        pub fn WinGetFuncArgCurrent(
            window: *mut pg_sys::WindowObjectData,
            argument: std::ffi::c_int,
            is_null: *mut bool,
        ) -> pg_sys::Datum;
    }
}

/// Whether a btree operator family sorts a type.
pub fn opfamily_can_sort_type(family: pg_sys::Oid, data_type: pg_sys::Oid) -> bool {
    // SAFETY: looks up two oids, which may be any; the closure holds nothing that needs a drop.
    unsafe { pg_guard_ffi_boundary(|| unguarded::opfamily_can_sort_type(family, data_type)) }
}

/// What the server hands to a window function.
#[derive(Clone, Copy)]
pub struct WindowObject(std::ptr::NonNull<pg_sys::WindowObjectData>);

impl WindowObject {
    /// # Safety
    /// The server's object, to be used during the call that it was handed to.
    pub unsafe fn new(window: std::ptr::NonNull<pg_sys::WindowObjectData>) -> Self {
        Self(window)
    }
}

/// Zeroed memory of the partition; in later calls the same.
pub fn window_memory(window: WindowObject, bytes: usize) -> *mut c_void {
    // SAFETY: by the contract of WindowObject; the closure holds nothing that needs a drop, as in the functions below.
    unsafe { pg_guard_ffi_boundary(|| unguarded::WinGetPartitionLocalMemory(window.0.as_ptr(), bytes)) }
}

/// Position of the row that a window function is called for, from 0.
pub fn window_position(window: WindowObject) -> i64 {
    // SAFETY: as above.
    unsafe { pg_guard_ffi_boundary(|| unguarded::WinGetCurrentPosition(window.0.as_ptr())) }
}

/// Rows of the partition.
pub fn window_row_count(window: WindowObject) -> i64 {
    // SAFETY: as above.
    unsafe { pg_guard_ffi_boundary(|| unguarded::WinGetPartitionRowCount(window.0.as_ptr())) }
}

/// An argument of a window function, by its number from 0, of a row of the partition; and whether it is NULL.
pub fn window_argument(window: WindowObject, argument: i32, row: i32) -> (pg_sys::Datum, bool) {
    // WINDOW_SEEK_HEAD of windowapi.h.
    const FROM_HEAD: i32 = 1;
    let (mut is_null, mut is_out) = (true, true);
    // SAFETY: as above.
    let value = unsafe {
        pg_guard_ffi_boundary(|| {
            let (is_null, is_out) = (&raw mut is_null, &raw mut is_out);
            unguarded::WinGetFuncArgInPartition(
                window.0.as_ptr(),
                argument,
                row,
                FROM_HEAD,
                false,
                is_null,
                is_out,
            )
        })
    };
    (value, is_null || is_out)
}

/// An argument of a window function, by its number from 0, of the row that it is called for; and whether it is NULL.
pub fn window_current_argument(window: WindowObject, argument: i32) -> (pg_sys::Datum, bool) {
    let mut is_null = true;
    // SAFETY: as above.
    let value = unsafe {
        pg_guard_ffi_boundary(|| {
            unguarded::WinGetFuncArgCurrent(window.0.as_ptr(), argument, &raw mut is_null)
        })
    };
    (value, is_null)
}

/// The code of the message that is being made; to be asked in a callback of the server's stack of error contexts.
pub fn error_code() -> std::ffi::c_int {
    // SAFETY: raises nothing in a callback.
    unsafe { unguarded::geterrcode() }
}

/// Throws another error in place of the one that is being made: does what `errfinish`, which has called the callback, would do
/// after it, and jumps. So the frames between must have nothing to drop, as those of pgrx have when it makes an error.
///
/// # Safety
/// In a callback of the server's stack of error contexts, outside of any guard; an error of level ERROR that outlives the
/// jump.
pub unsafe fn throw_instead(error: *mut pg_sys::ErrorData) {
    // SAFETY: by contract. `FlushErrorState` empties the stack of errors, as whoever catches one does, and the memory that
    // belongs to it. The server copies most texts when it throws an error again. The others, which are constants of the server in
    // an error that was never copied, are copied here, to live as long.
    unsafe {
        pg_sys::FlushErrorState();
        pg_sys::MemoryContextSwitchTo(pg_sys::ErrorContext);
        let mut error = *error;
        for text in [
            &mut error.filename,
            &mut error.funcname,
            &mut error.domain,
            &mut error.context_domain,
            &mut error.message_id,
        ] {
            if !text.is_null() {
                *text = pg_sys::pstrdup(*text);
            }
        }
        pg_sys::InterruptHoldoffCount = 0;
        pg_sys::QueryCancelHoldoffCount = 0;
        unguarded::ReThrowError(&raw mut error)
    }
}

/// Whether a partition lies below another relation, at any depth.
pub fn is_partition_of(partition: pg_sys::Oid, root: pg_sys::Oid) -> bool {
    // SAFETY: the relation is a partition, or the answer is an empty list; the closure holds nothing that needs a drop.
    unsafe {
        let ancestors = pg_guard_ffi_boundary(|| unguarded::get_partition_ancestors(partition));
        pg_sys::list_member_oid(ancestors, root)
    }
}

/// The statement that creates an index like another one, with other columns in its expressions and its condition.
///
/// # Safety
/// An open index, and a map of all columns of its table.
pub unsafe fn cloned_index_statement(
    table: *mut pg_sys::RangeVar,
    index: pg_sys::Relation,
    columns: *const pg_sys::AttrMap,
) -> *mut pg_sys::IndexStmt {
    // SAFETY: by contract; without a place for the constraint it is not told. The closure holds nothing that needs a drop.
    unsafe {
        pg_guard_ffi_boundary(|| {
            unguarded::generateClonedIndexStmt(table, index, columns, std::ptr::null_mut())
        })
    }
}

/// Rows of a table that are fetched by their places, as a scan of an index does.
#[derive(Clone, Copy)]
pub struct RowFetch(*mut pg_sys::IndexFetchTableData);

impl RowFetch {
    /// # Safety
    /// An open table, which outlives the fetch; [`RowFetch::end`] is called, or an error ends the transaction.
    pub unsafe fn begin(table: pg_sys::Relation) -> Self {
        // SAFETY: by contract; the closure holds nothing that needs a drop, as in the functions below.
        unsafe {
            let begin = (*(*table).rd_tableam).index_fetch_begin.expect("every table can fetch rows");
            Self(pg_guard_ffi_boundary(|| begin(table)))
        }
    }

    /// Puts the version of a row that the snapshot sees into the slot; false if it sees none.
    ///
    /// # Safety
    /// A fetch that has not ended, a registered or active snapshot, a slot of the table.
    pub unsafe fn fetch(
        self,
        place: &mut pg_sys::ItemPointerData,
        snapshot: pg_sys::Snapshot,
        slot: *mut pg_sys::TupleTableSlot,
    ) -> bool {
        let (mut again, mut all_dead) = (false, false);
        // SAFETY: by contract.
        unsafe {
            let fetch = (*(*(*self.0).rel).rd_tableam).index_fetch_tuple.expect("every table can fetch rows");
            pg_guard_ffi_boundary(|| {
                fetch(self.0, &raw mut *place, snapshot, slot, &raw mut again, &raw mut all_dead)
            })
        }
    }

    /// # Safety
    /// A fetch that has not ended.
    pub unsafe fn end(self) {
        // SAFETY: by contract.
        unsafe {
            let end = (*(*(*self.0).rel).rd_tableam).index_fetch_end.expect("every table can fetch rows");
            pg_guard_ffi_boundary(|| end(self.0));
        }
    }
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
