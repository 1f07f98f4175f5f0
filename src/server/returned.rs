//! Rows that a function returns and that may be many: the server keeps them, on disk beyond `work_mem`.

use crate::error::{Code, Report};
use crate::fault;
use pgrx::pg_sys;

/// The rows of a call.
pub struct Returned {
    store: *mut pg_sys::Tuplestorestate,
    descriptor: pg_sys::TupleDesc,
}

impl Returned {
    /// Begins to return rows: the function itself then returns NULL.
    ///
    /// # Safety
    /// The call's own information, of a function that is declared to return rows of several columns; the rows are put during that
    /// call.
    pub unsafe fn begin(call: pg_sys::FunctionCallInfo) -> Self {
        // SAFETY: by contract; the node is what its tag says. Rows and their description live as long as the query. The store
        // belongs to the resource owner of now, and so outlives subtransactions that begin later.
        unsafe {
            let info: *mut pg_sys::ReturnSetInfo = (*call).resultinfo.cast();
            let wants_rows = !info.is_null()
                && (*info).type_ == pg_sys::NodeTag::T_ReturnSetInfo
                && (*info).allowedModes.cast_unsigned() & pg_sys::SetFunctionReturnMode::SFRM_Materialize
                    != 0;
            if !wants_rows {
                Report::new(
                    Code::ERRCODE_FEATURE_NOT_SUPPORTED,
                    "a function that returns rows was called where one value is expected",
                )
                .detail("It is called where a set of rows is not accepted.")
                .hint("Call it in FROM.")
                .raise();
            }
            let before = pg_sys::MemoryContextSwitchTo((*(*info).econtext).ecxt_per_query_memory);
            let mut descriptor = std::ptr::null_mut();
            let kind = pg_sys::get_call_result_type(call, std::ptr::null_mut(), &raw mut descriptor);
            assert_eq!(kind, pg_sys::TypeFuncClass::TYPEFUNC_COMPOSITE, "declared with columns");
            let random = pg_sys::SetFunctionReturnMode::SFRM_Materialize_Random;
            let is_random = (*info).allowedModes.cast_unsigned() & random != 0;
            let store = pg_sys::tuplestore_begin_heap(is_random, false, pg_sys::work_mem);
            pg_sys::MemoryContextSwitchTo(before);
            (*info).returnMode = pg_sys::SetFunctionReturnMode::SFRM_Materialize;
            (*info).setResult = store;
            (*info).setDesc = descriptor;
            Self { store, descriptor }
        }
    }

    /// Adds a row, which is copied: a value for each column, of its type.
    ///
    /// # Safety
    /// As many values as there are columns, of their types.
    pub unsafe fn put(&self, values: &[Option<pg_sys::Datum>]) {
        fault::point("return a row");
        // SAFETY: by contract.
        unsafe {
            assert_eq!(
                usize::try_from((*self.descriptor).natts),
                Ok(values.len()),
                "a value for each column"
            );
            let mut datums: Vec<pg_sys::Datum> =
                values.iter().map(|value| value.unwrap_or(pg_sys::Datum::null())).collect();
            let mut nulls: Vec<bool> = values.iter().map(Option::is_none).collect();
            pg_sys::tuplestore_putvalues(
                self.store,
                self.descriptor,
                datums.as_mut_ptr(),
                nulls.as_mut_ptr(),
            );
        }
    }
}
