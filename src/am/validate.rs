//! Checks an operator class: one ordering operator that gives float8, one support function.

use super::opclass::{ORDER_STRATEGY, SUPPORT_KIND};
use crate::encoding;
use crate::error::{Code, Report};
use crate::server::catalog::each_family_member;
use crate::server::raw::opfamily_can_sort_type;
use pgrx::{pg_guard, pg_sys};

/// Whether an operator class is one of ours, whole and well-formed; says in INFO messages what is wrong.
#[pg_guard]
pub unsafe extern "C-unwind" fn amvalidate(opclass: pg_sys::Oid) -> bool {
    // SAFETY: reads the catalogs by oid; every reference is released.
    unsafe {
        let tuple =
            pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::CLAOID as i32, pg_sys::Datum::from(opclass));
        if tuple.is_null() {
            Report::new(Code::ERRCODE_UNDEFINED_OBJECT, "operator class does not exist").raise();
        }
        let class = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_opclass>();
        let (family, input) = (class.opcfamily, class.opcintype);
        let name = std::ffi::CStr::from_ptr(class.opcname.data.as_ptr());
        let name = encoding::to_utf8_lossy(name.to_bytes()).into_owned();
        pg_sys::ReleaseSysCache(tuple);
        let mut findings = operators(family, input);
        findings.extend(functions(family, input));
        for finding in &findings {
            Report::new(
                Code::ERRCODE_INVALID_OBJECT_DEFINITION,
                format!("operator class \"{name}\" of access method ann {finding}"),
            )
            .info();
        }
        findings.is_empty()
    }
}

/// What is wrong with the operators of a family, with regard to one input type.
///
/// # Safety
/// `family` is the oid of an operator family.
unsafe fn operators(family: pg_sys::Oid, input: pg_sys::Oid) -> Vec<String> {
    let mut findings = Vec::new();
    let mut found = false;
    // SAFETY: a catalog list is valid until released.
    unsafe {
        each_family_member(pg_sys::SysCacheIdentifier::AMOPSTRATEGY as i32, family, |tuple| {
            let operator = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_amop>();
            let number = operator.amopopr.to_u32();
            if u16::try_from(operator.amopstrategy) != Ok(ORDER_STRATEGY) {
                findings.push(format!("has operator {number} with invalid number {}", operator.amopstrategy));
            }
            if u8::try_from(operator.amoppurpose) != Ok(pg_sys::AMOP_ORDER) {
                findings.push(format!("has operator {number}, which is not for ordering"));
                return;
            }
            let result = pg_sys::get_op_rettype(operator.amopopr);
            if result != pg_sys::FLOAT8OID
                || !opfamily_can_sort_type(operator.amopsortfamily, pg_sys::FLOAT8OID)
            {
                findings.push(format!("has operator {number}, which does not sort by float8"));
            }
            found |= operator.amoplefttype == input;
        });
    }
    if !found {
        findings.push("lacks an ordering operator for its type".into());
    }
    findings
}

/// What is wrong with the support functions of a family, with regard to one input type.
///
/// # Safety
/// `family` is the oid of an operator family.
unsafe fn functions(family: pg_sys::Oid, input: pg_sys::Oid) -> Vec<String> {
    let mut findings = Vec::new();
    let mut found = false;
    // SAFETY: a catalog list is valid until released.
    unsafe {
        each_family_member(pg_sys::SysCacheIdentifier::AMPROCNUM as i32, family, |tuple| {
            let function = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_amproc>();
            let number = function.amproc.to_u32();
            if u16::try_from(function.amprocnum) != Ok(SUPPORT_KIND) {
                findings.push(format!("has function {number} with invalid number {}", function.amprocnum));
            } else if pg_sys::get_func_rettype(function.amproc) != pg_sys::INT4OID
                || pg_sys::get_func_nargs(function.amproc) != 1
            {
                findings.push(format!(
                    "has function {number} with another signature than (internal) returns integer"
                ));
            }
            found |= function.amproclefttype == input && function.amprocrighttype == input;
        });
    }
    if !found {
        findings.push("lacks support function 1".into());
    }
    findings
}
