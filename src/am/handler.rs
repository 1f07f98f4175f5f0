//! What `ann` can do and which functions do it.

use super::keys::LAST_STRATEGY;
use super::opclass::SUPPORT_KIND;
use super::{build, cost, insert, options, scan, vacuum, validate};
use pgrx::{Internal, pg_guard, pg_sys};

/// Handler function of the access method.
#[pgrx::pg_extern(sql = false)]
fn ann_handler() -> Internal {
    // SAFETY: a new node of the right size and tag; fields that are not set stay zero, which means no.
    let routine = unsafe {
        let routine = pg_sys::palloc0(size_of::<pg_sys::IndexAmRoutine>()).cast::<pg_sys::IndexAmRoutine>();
        (*routine).type_ = pg_sys::NodeTag::T_IndexAmRoutine;
        describe(&mut *routine);
        routine
    };
    Some(pg_sys::Datum::from(routine)).into()
}

fn describe(am: &mut pg_sys::IndexAmRoutine) {
    am.amstrategies = LAST_STRATEGY;
    am.amsupport = SUPPORT_KIND;
    am.amcanorderbyop = true;
    // After the vector there may be columns to filter by.
    am.amcanmulticol = true;
    am.amsearcharray = true;
    am.amsearchnulls = true;
    // A scan has an ORDER BY and no key on the vector.
    am.amoptionalkey = true;
    am.amusemaintenanceworkmem = true;
    am.amparallelvacuumoptions =
        u8::try_from(pg_sys::VACUUM_OPTION_PARALLEL_BULKDEL).expect("a flag of the first byte");
    am.amkeytype = pg_sys::InvalidOid;

    am.ambuild = Some(build::ambuild);
    am.ambuildempty = Some(build::ambuildempty);
    am.amproperty = Some(amproperty);
    am.ambuildphasename = Some(build::ambuildphasename);
    am.aminsert = Some(insert::aminsert);
    am.ambulkdelete = Some(vacuum::ambulkdelete);
    am.amvacuumcleanup = Some(vacuum::amvacuumcleanup);
    am.amcostestimate = Some(cost::amcostestimate);
    am.amoptions = Some(options::amoptions);
    am.amvalidate = Some(validate::amvalidate);
    am.ambeginscan = Some(scan::ambeginscan);
    am.amrescan = Some(scan::amrescan);
    am.amgettuple = Some(scan::amgettuple);
    am.amendscan = Some(scan::amendscan);
}

/// What the server would guess wrongly of `pg_indexam_has_property` and its like.
#[pg_guard]
unsafe extern "C-unwind" fn amproperty(
    _index: pg_sys::Oid,
    column: std::ffi::c_int,
    property: pg_sys::IndexAMProperty::Type,
    _name: *const std::ffi::c_char,
    result: *mut bool,
    _is_null: *mut bool,
) -> bool {
    let answer = match property {
        // No operator of a class is a condition.
        pg_sys::IndexAMProperty::AMPROP_CAN_EXCLUDE => false,
        pg_sys::IndexAMProperty::AMPROP_DISTANCE_ORDERABLE if column > 0 => column == 1,
        // The first column is the vector.
        pg_sys::IndexAMProperty::AMPROP_SEARCH_ARRAY | pg_sys::IndexAMProperty::AMPROP_SEARCH_NULLS
            if column > 0 =>
        {
            column > 1
        }
        _ => return false,
    };
    // SAFETY: a place for the answer.
    unsafe { *result = answer };
    true
}
