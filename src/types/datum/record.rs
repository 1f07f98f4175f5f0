//! Rows to return.

use super::metadata;
use pgrx::callconv::{BoxRet, FcInfo};
use pgrx::datum::{Datum, IntoDatum};
use pgrx::pg_sys;
use std::ptr;

/// One row to return from a function with OUT parameters, in their order. The SQL of an earlier version may declare only
/// the first of them: versions add columns at the end.
pub struct NewRecord(Vec<Option<pg_sys::Datum>>);

impl NewRecord {
    pub fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds the next column; its type must be the one that the SQL declares.
    pub fn column(mut self, value: Option<impl IntoDatum>) -> Self {
        self.0.push(value.and_then(IntoDatum::into_datum));
        self
    }
}

// SAFETY: the server forms the tuple by the row type of the function, which has no more columns than there are values.
unsafe impl BoxRet for NewRecord {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        let mut nulls: Vec<bool> = self.0.iter().map(Option::is_none).collect();
        let mut values: Vec<pg_sys::Datum> =
            self.0.into_iter().map(|value| value.unwrap_or(pg_sys::Datum::null())).collect();
        let mut row_type = ptr::null_mut();
        // SAFETY: fcinfo is valid during the call; the arrays have an entry for each column of the row.
        unsafe {
            pg_sys::get_call_result_type(fcinfo.as_mut_ptr(), ptr::null_mut(), &raw mut row_type);
            assert!(
                !row_type.is_null()
                    && usize::try_from((*row_type).natts).is_ok_and(|columns| columns <= values.len()),
                "the SQL declares these columns, or the first of them"
            );
            let row_type = pg_sys::BlessTupleDesc(row_type);
            let tuple = pg_sys::heap_form_tuple(row_type, values.as_mut_ptr(), nulls.as_mut_ptr());
            fcinfo.return_raw_datum(pg_sys::HeapTupleHeaderGetDatum((*tuple).t_data))
        }
    }
}

sql_name!(NewRecord, "record");
