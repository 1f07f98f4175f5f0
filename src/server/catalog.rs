//! Look-ups in the server's catalogs.

use pgrx::pg_sys;

/// The function that access method ann was created with.
pub fn ann_handler() -> Option<pg_sys::Oid> {
    // SAFETY: looks into the catalogs.
    unsafe {
        let method = pg_sys::get_index_am_oid(c"ann".as_ptr(), true);
        (method != pg_sys::InvalidOid).then(|| {
            let tuple = pg_sys::SearchSysCache1(
                pg_sys::SysCacheIdentifier::AMOID as i32,
                pg_sys::Datum::from(method),
            );
            assert!(!tuple.is_null(), "looked up above");
            let handler = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_am>()).amhandler;
            pg_sys::ReleaseSysCache(tuple);
            handler
        })
    }
}

/// The table of an index; `None` if there is no such index.
pub fn table_of(index: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: looks into the catalogs.
    let table = unsafe { pg_sys::IndexGetRelation(index, true) };
    (table != pg_sys::InvalidOid).then_some(table)
}

/// The name of a relation, without its schema; empty if there is none.
pub fn name_of(relation: pg_sys::Oid) -> String {
    // SAFETY: looks into the catalogs; the answer is NULL or a NUL-terminated copy in the current context.
    unsafe {
        let name = pg_sys::get_rel_name(relation);
        if name.is_null() {
            String::new()
        } else {
            crate::encoding::to_utf8_lossy(std::ffi::CStr::from_ptr(name).to_bytes()).into_owned()
        }
    }
}

/// Calls `each` with the members of an operator family.
///
/// # Safety
/// `cache` is a catalog cache whose first key is an operator family.
pub unsafe fn each_family_member(cache: i32, family: pg_sys::Oid, mut each: impl FnMut(pg_sys::HeapTuple)) {
    // SAFETY: the list is pinned until it is released, here or by the server after an error.
    unsafe {
        let null = pg_sys::Datum::null();
        let list = pg_sys::SearchSysCacheList(cache, 1, pg_sys::Datum::from(family), null, null);
        let count = usize::try_from((*list).n_members).expect("a count");
        for i in 0..count {
            let member = (*list).members.as_slice(count)[i];
            each(&raw mut (*member).tuple);
        }
        pg_sys::ReleaseCatCacheList(list);
    }
}
