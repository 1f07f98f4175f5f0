//! Checks an operator class: of vectors, one ordering operator that gives float8; of key columns, the operators that fit its support
//! function.

use super::keys;
use super::opclass::{ORDER_STRATEGY, SUPPORT_KIND};
use crate::encoding;
use crate::error::{Code, Report};
use crate::server::catalog::each_family_member;
use crate::server::raw::opfamily_can_sort_type;
use pgrx::{FromDatum, pg_guard, pg_sys};

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
        let mut findings = match key_strategies(family, input) {
            Some(strategies) => conditions(family, input, strategies),
            None => operators(family, input),
        };
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

/// The strategies that operators of a class of key columns may have; `None` if the class is one of vectors.
///
/// # Safety
/// `family` is the oid of an operator family.
unsafe fn key_strategies(family: pg_sys::Oid, input: pg_sys::Oid) -> Option<&'static [u16]> {
    // SAFETY: plain look into the catalogs; what the function does is the superuser's word who made the class.
    unsafe {
        let number = i16::try_from(SUPPORT_KIND).expect("a small number");
        let function = pg_sys::get_opfamily_proc(family, input, input, number);
        let is_callable = function != pg_sys::InvalidOid
            && pg_sys::get_func_rettype(function) == pg_sys::INT4OID
            && pg_sys::get_func_nargs(function) == 1;
        if !is_callable {
            return None;
        }
        let code = pg_sys::OidFunctionCall1Coll(function, pg_sys::InvalidOid, pg_sys::Datum::null());
        keys::strategies(i32::from_datum(code, false).expect("not NULL"))
    }
}

/// What is wrong with the operators of a family of key columns.
///
/// # Safety
/// `family` is the oid of an operator family.
unsafe fn conditions(family: pg_sys::Oid, input: pg_sys::Oid, strategies: &[u16]) -> Vec<String> {
    let (mut findings, mut found) = (Vec::new(), Vec::new());
    // SAFETY: a catalog list is valid until released.
    unsafe {
        each_family_member(pg_sys::SysCacheIdentifier::AMOPSTRATEGY as i32, family, |tuple| {
            let operator = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_amop>();
            let number = operator.amopopr.to_u32();
            let strategy = u16::try_from(operator.amopstrategy).unwrap_or(0);
            if !strategies.contains(&strategy) {
                findings.push(format!("has operator {number} with invalid number {}", operator.amopstrategy));
            }
            if u8::try_from(operator.amoppurpose) != Ok(pg_sys::AMOP_SEARCH) {
                findings.push(format!("has operator {number}, which is for ordering"));
            }
            if operator.amoplefttype == input && operator.amoprighttype == input {
                found.push(strategy);
            }
        });
    }
    let lacking = strategies.iter().filter(|strategy| !found.contains(strategy));
    findings.extend(lacking.map(|strategy| format!("lacks operator {strategy} for its type")));
    findings
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
