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

/// An object that depends on others.
#[derive(Clone, Copy)]
pub enum Object {
    Relation(pg_sys::Oid),
    Trigger(pg_sys::Oid),
}

fn address(class: pg_sys::Oid, object: pg_sys::Oid, column: i16) -> pg_sys::ObjectAddress {
    pg_sys::ObjectAddress { classId: class, objectId: object, objectSubId: i32::from(column) }
}

impl Object {
    fn address(self) -> pg_sys::ObjectAddress {
        match self {
            Object::Relation(oid) => address(pg_sys::RelationRelationId, oid, 0),
            Object::Trigger(oid) => address(pg_sys::TriggerRelationId, oid, 0),
        }
    }
}

/// Has an object dropped together with a column, without CASCADE.
pub fn make_part_of_column(object: Object, relation: pg_sys::Oid, column: i16) {
    let (object, column) = (object.address(), address(pg_sys::RelationRelationId, relation, column));
    // SAFETY: writes a row of pg_depend; both addresses are of objects that exist.
    unsafe { pg_sys::recordDependencyOn(&object, &column, pg_sys::DependencyType::DEPENDENCY_AUTO) };
}

/// Ends that an object is dropped together with a column of a relation.
pub fn end_part_of_columns(object: pg_sys::Oid, relation: pg_sys::Oid) {
    // SAFETY: deletes rows of pg_depend.
    unsafe {
        pg_sys::deleteDependencyRecordsForSpecific(
            pg_sys::RelationRelationId,
            object,
            pg_sys::DependencyType::DEPENDENCY_AUTO as std::ffi::c_char,
            pg_sys::RelationRelationId,
            relation,
        );
    }
}

/// Keeps a relation, or the column of that number, from being dropped without CASCADE as long as the object is there. A
/// column that a trigger needs cannot get another type either.
pub fn make_need(object: Object, relation: pg_sys::Oid, column: i16) {
    let (object, relation) = (object.address(), address(pg_sys::RelationRelationId, relation, column));
    // SAFETY: as above.
    unsafe { pg_sys::recordDependencyOn(&object, &relation, pg_sys::DependencyType::DEPENDENCY_NORMAL) };
}

/// Whether a relation goes when the column goes, or when any column of the table does that 0 stands for.
pub fn is_part_of_column(object: pg_sys::Oid, relation: pg_sys::Oid, column: i16) -> bool {
    let sql = "SELECT FROM pg_catalog.pg_depend WHERE classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND objid = $1
        AND refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND refobjid = $2
        AND objsubid = 0 AND (refobjsubid = $3 OR $3 = 0 AND refobjsubid > 0) AND deptype = 'a'";
    let arguments =
        [super::spi::oid(object), super::spi::oid(relation), super::spi::integer(i64::from(column))];
    super::security::pinned(|| super::spi::first(sql, &arguments, |_| ()).is_some())
}

/// A relation by schema and name.
pub fn relation(schema: &str, name: &str) -> Option<pg_sys::Oid> {
    let (schema, name) = (super::spi::c_string(schema), super::spi::c_string(name));
    // SAFETY: look into the catalogs.
    let relation = unsafe {
        let schema = pg_sys::get_namespace_oid(schema.as_ptr(), true);
        if schema == pg_sys::InvalidOid { schema } else { pg_sys::get_relname_relid(name.as_ptr(), schema) }
    };
    (relation != pg_sys::InvalidOid).then_some(relation)
}

/// Schema and name of a relation, if it is there.
pub fn qualified_name(relation: pg_sys::Oid) -> Option<(String, String)> {
    // SAFETY: looks into the catalogs; answers are NULL or NUL-terminated copies.
    unsafe {
        let name = pg_sys::get_rel_name(relation);
        if name.is_null() {
            return None;
        }
        let schema = pg_sys::get_namespace_name(pg_sys::get_rel_namespace(relation));
        let text = |text: *mut std::ffi::c_char| {
            crate::encoding::to_utf8_lossy(std::ffi::CStr::from_ptr(text).to_bytes()).into_owned()
        };
        (!schema.is_null()).then(|| (text(schema), text(name)))
    }
}

/// Whether a role may insert into a table.
pub fn may_insert(role: pg_sys::Oid, table: pg_sys::Oid) -> bool {
    let insert = pg_sys::ACL_INSERT as pg_sys::AclMode;
    // SAFETY: looks into the catalogs.
    unsafe { pg_sys::pg_class_aclcheck(table, role, insert) == pg_sys::AclResult::ACLCHECK_OK }
}

/// A column's name, if it is there.
pub fn column_name(relation: pg_sys::Oid, column: i16) -> Option<String> {
    // SAFETY: looks into the catalogs; the answer is NULL or a NUL-terminated copy.
    unsafe {
        let name = pg_sys::get_attname(relation, column, true);
        (!name.is_null())
            .then(|| crate::encoding::to_utf8_lossy(std::ffi::CStr::from_ptr(name).to_bytes()).into_owned())
    }
}

/// The triggers of a table that call a function and have one argument, each with it: as its relation cache knows them, and so
/// as the table is for whoever has it locked, whatever a snapshot sees.
pub fn trigger_arguments(relation: pg_sys::Oid, function: pg_sys::Oid) -> Vec<(pg_sys::Oid, String)> {
    let mut arguments = Vec::new();
    // SAFETY: the table is open while its triggers are read; their arguments are NUL-terminated.
    unsafe {
        let table = pg_sys::try_relation_open(relation, pg_sys::AccessShareLock.cast_signed());
        if table.is_null() {
            return arguments;
        }
        if let Some(triggers) = (*table).trigdesc.as_ref() {
            for place in 0..usize::try_from(triggers.numtriggers).unwrap_or(0) {
                let trigger = &*triggers.triggers.add(place);
                if trigger.tgfoid == function && trigger.tgnargs == 1 {
                    let argument = std::ffi::CStr::from_ptr(*trigger.tgargs);
                    let argument = crate::encoding::to_utf8_lossy(argument.to_bytes()).into_owned();
                    arguments.push((trigger.tgoid, argument));
                }
            }
        }
        pg_sys::relation_close(table, pg_sys::NoLock.cast_signed());
    }
    arguments
}

/// A function without arguments in the schema of another one.
pub fn function_beside(function: pg_sys::Oid, name: &str) -> Option<pg_sys::Oid> {
    let name = super::spi::c_string(name);
    // SAFETY: looks into the catalogs; the name is a NUL-terminated string.
    unsafe {
        let schema = pg_sys::get_func_namespace(function);
        let found = pg_sys::GetSysCacheOid(
            pg_sys::SysCacheIdentifier::PROCNAMEARGSNSP as i32,
            // The first column of pg_proc.
            1,
            pg_sys::Datum::from(name.as_ptr()),
            pg_sys::Datum::from(pg_sys::buildoidvector(std::ptr::null(), 0)),
            pg_sys::Datum::from(schema),
            pg_sys::Datum::null(),
        );
        (found != pg_sys::InvalidOid).then_some(found)
    }
}

/// The number of a column by its name now.
pub fn column_number(relation: pg_sys::Oid, name: &str) -> Option<i16> {
    let name = super::spi::c_string(name);
    // SAFETY: looks into the catalogs; a NUL-terminated string.
    let number = unsafe { pg_sys::get_attnum(relation, name.as_ptr()) };
    (number > 0).then_some(number)
}
