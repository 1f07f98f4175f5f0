//! Conditions on key columns that the planner of some versions leaves out of a scan in order.
//!
//! Up to PostgreSQL 16, a condition `column = ANY (array)`, which `IN` becomes, on any but an index's first column costs a
//! path its order, as it does in a btree. Ours keeps it: the array is one more condition of the walk. Up to 15, a boolean column is matched
//! by itself (`WHERE flag`, which `flag = true` becomes) for the server's own access methods alone.
//!
//! The planner asks what a path costs before it judges it, and that is where these conditions join the path. They are then
//! passed to the scan and checked again for each row, as others are.

#![cfg(any(feature = "pg14", feature = "pg15", feature = "pg16"))]

use super::lists::pointers;
use pgrx::pg_sys;
use std::ptr;

/// Lets a path in order take up what it may of its relation's and its own parameters' conditions.
///
/// # Safety
/// A path over an index of ours that is being costed.
pub unsafe fn complete(root: *mut pg_sys::PlannerInfo, path: &mut pg_sys::IndexPath) {
    // SAFETY: the planner's structures; new nodes are memory of its context.
    unsafe {
        let index = path.indexinfo;
        let of_parameters = path.path.param_info.as_ref().map_or(ptr::null_mut(), |info| info.ppi_clauses);
        let conditions =
            pointers::<pg_sys::RestrictInfo>((*index).indrestrictinfo)
                .chain(pointers::<pg_sys::RestrictInfo>(of_parameters));
        let mut is_copied = false;
        for condition in conditions {
            if pointers::<pg_sys::IndexClause>(path.indexclauses).any(|clause| (*clause).rinfo == condition) {
                continue;
            }
            let Some((column, qual)) = of_key_column(root, index, condition) else { continue };
            let clause = pg_sys::palloc0(size_of::<pg_sys::IndexClause>()).cast::<pg_sys::IndexClause>();
            (*clause).type_ = pg_sys::NodeTag::T_IndexClause;
            (*clause).rinfo = condition;
            (*clause).indexquals = pg_sys::lappend(ptr::null_mut(), qual.cast());
            (*clause).indexcol = i16::try_from(column).expect("a column");
            if !is_copied {
                // Paths of one index share the list.
                path.indexclauses = pg_sys::list_copy(path.indexclauses);
                is_copied = true;
            }
            path.indexclauses = pg_sys::lappend(path.indexclauses, clause.cast());
        }
    }
}

/// The key column of a condition that the planner left out, and what the scan gets.
///
/// # Safety
/// The planner's structures.
#[allow(clippy::wildcard_enum_match_arm, reason = "of the hundreds of tags few matter")]
unsafe fn of_key_column(
    root: *mut pg_sys::PlannerInfo,
    index: *mut pg_sys::IndexOptInfo,
    condition: *mut pg_sys::RestrictInfo,
) -> Option<(i32, *mut pg_sys::RestrictInfo)> {
    use pg_sys::NodeTag as Tag;
    // SAFETY: a node's tag determines its type; an index has as many operator families as key columns.
    unsafe {
        let least_security = (*(*index).rel).baserestrict_min_security;
        if (*condition).pseudoconstant
            // Row security goes first, unless the condition can tell nobody what it saw.
            || ((*condition).security_level > least_security && !(*condition).leakproof)
        {
            return None;
        }
        let mut columns = 1..(*index).nkeycolumns;
        let family = |column: i32| *(*index).opfamily.add(usize::try_from(column).expect("a column"));
        let matches = |node: *mut pg_sys::Node, column| pg_sys::match_index_to_operand(node, column, index);
        let node: *mut pg_sys::Node = (*condition).clause.cast();
        match (*node).type_ {
            Tag::T_ScalarArrayOpExpr => {
                let any = &*node.cast::<pg_sys::ScalarArrayOpExpr>();
                let mut operands = pointers::<pg_sys::Node>(any.args);
                let (left, array) = (operands.next()?, operands.next()?);
                let relation = i32::try_from((*(*index).rel).relid).ok()?;
                if !any.useOr
                    || pg_sys::bms_is_member(relation, pg_sys::pull_varnos(root, array))
                    || pg_sys::contain_volatile_functions(array)
                {
                    return None;
                }
                let column = columns.find(|&column| {
                    let collation = *(*index).indexcollations.add(usize::try_from(column).expect("a column"));
                    (collation == pg_sys::InvalidOid || collation == any.inputcollid)
                        && pg_sys::op_in_opfamily(any.opno, family(column))
                        && matches(left, column)
                })?;
                Some((column, condition))
            }
            #[cfg(any(feature = "pg14", feature = "pg15"))]
            _ => {
                let (operand, is_true) = truth_of(node)?;
                let equal = pg_sys::Oid::from(pg_sys::BooleanEqualOperator);
                let column = columns.find(|&column| {
                    pg_sys::op_in_opfamily(equal, family(column)) && matches(operand, column)
                })?;
                let value = pg_sys::makeBoolConst(is_true, false);
                let none = pg_sys::InvalidOid;
                let clause = pg_sys::make_opclause(
                    equal,
                    pg_sys::BOOLOID,
                    false,
                    operand.cast(),
                    value.cast(),
                    none,
                    none,
                );
                let nobody = ptr::null_mut();
                let qual =
                    pg_sys::make_restrictinfo(root, clause, true, false, false, 0, nobody, nobody, nobody);
                Some((column, qual))
            }
            #[cfg(not(any(feature = "pg14", feature = "pg15")))]
            _ => None,
        }
    }
}

/// What a condition says of a boolean operand: that it is true, or that it is false.
///
/// # Safety
/// A node of an expression.
#[cfg(any(feature = "pg14", feature = "pg15"))]
#[allow(clippy::wildcard_enum_match_arm, reason = "of the hundreds of tags few matter")]
unsafe fn truth_of(node: *mut pg_sys::Node) -> Option<(*mut pg_sys::Node, bool)> {
    use pg_sys::NodeTag as Tag;
    // SAFETY: a node's tag determines its type.
    unsafe {
        match (*node).type_ {
            Tag::T_Var => Some((node, true)),
            Tag::T_BoolExpr => {
                let not = &*node.cast::<pg_sys::BoolExpr>();
                let operand = pointers::<pg_sys::Node>(not.args).next()?;
                (not.boolop == pg_sys::BoolExprType::NOT_EXPR).then_some((operand, false))
            }
            Tag::T_BooleanTest => {
                let test = &*node.cast::<pg_sys::BooleanTest>();
                match test.booltesttype {
                    pg_sys::BoolTestType::IS_TRUE => Some((test.arg.cast(), true)),
                    pg_sys::BoolTestType::IS_FALSE => Some((test.arg.cast(), false)),
                    _ => None,
                }
            }
            // An expression that is a key column.
            _ if pg_sys::exprType(node) == pg_sys::BOOLOID => Some((node, true)),
            _ => None,
        }
    }
}
