//! Storage options of an index: `WITH (ef_search = 120)`. A session's settings come before them.

use crate::guc;
use crate::storage::Relation;
use imgvec_ann::graph::search::DEFAULT_EF;
use pgrx::{pg_guard, pg_sys};
use std::cell::Cell;
use std::mem::offset_of;
use std::ptr;

/// As the server stores parsed options: a varlena, then each value where the table below says.
#[derive(Clone, Copy)]
#[repr(C)]
struct Stored {
    varlena_header: i32,
    ef_search: i32,
    max_scan_rows: i32,
}

thread_local! {
    static KIND: Cell<pg_sys::relopt_kind::Type> = const { Cell::new(0) };
}

/// Registers the options; once in each process.
pub fn define() {
    // SAFETY: static NUL-terminated strings; the server copies them.
    unsafe {
        let kind = pg_sys::add_reloption_kind();
        let lock = pg_sys::AccessExclusiveLock as pg_sys::LOCKMODE;
        pg_sys::add_int_reloption(
            kind,
            c"ef_search".as_ptr(),
            c"Candidates that a search keeps; 0 stands for the default".as_ptr(),
            0,
            0,
            guc::MAX_EF_SEARCH,
            lock,
        );
        pg_sys::add_int_reloption(
            kind,
            c"max_scan_rows".as_ptr(),
            c"Rows after which a scan of the index ends; 0 stands for no limit".as_ptr(),
            0,
            0,
            i32::MAX,
            lock,
        );
        KIND.set(kind);
    }
}

/// Parses and checks the options of an index.
#[pg_guard]
pub unsafe extern "C-unwind" fn amoptions(options: pg_sys::Datum, validate: bool) -> *mut pg_sys::bytea {
    #[allow(clippy::needless_update, reason = "PostgreSQL 18 has one field more")]
    let entry = |name: &'static std::ffi::CStr, offset: usize| pg_sys::relopt_parse_elt {
        optname: name.as_ptr(),
        opttype: pg_sys::relopt_type::RELOPT_TYPE_INT,
        offset: i32::try_from(offset).expect("a small struct"),
        ..Default::default()
    };
    let table = [
        entry(c"ef_search", offset_of!(Stored, ef_search)),
        entry(c"max_scan_rows", offset_of!(Stored, max_scan_rows)),
    ];
    // SAFETY: the table's offsets are those of Stored, whose size is told.
    unsafe {
        let parsed = pg_sys::build_reloptions(
            options,
            validate,
            KIND.get(),
            size_of::<Stored>(),
            table.as_ptr(),
            i32::try_from(table.len()).expect("two"),
        );
        if parsed.is_null() { ptr::null_mut() } else { parsed.cast() }
    }
}

fn stored(index: Relation) -> Option<Stored> {
    // SAFETY: amoptions fills this struct.
    unsafe { index.options::<Stored>() }
}

/// Beam width of a search: the session's setting, else the index's option, else the default.
pub fn ef_search(index: Relation) -> usize {
    guc::ef_search()
        .or_else(|| stored(index).and_then(|s| usize::try_from(s.ef_search).ok()).filter(|&ef| ef > 0))
        .unwrap_or(DEFAULT_EF)
}

/// Rows after which a scan ends; `None` for no limit.
pub fn max_scan_rows(index: Relation) -> Option<u64> {
    guc::max_scan_rows()
        .or_else(|| stored(index).and_then(|s| u64::try_from(s.max_scan_rows).ok()).filter(|&rows| rows > 0))
}
