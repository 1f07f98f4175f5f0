//! Thresholds of distance: `WHERE embedding <=> $1 < 0.3 ORDER BY embedding <=> $1`.
//!
//! Such a condition is no condition of the index to the planner, as its operator compares two numbers, so each row that the scan gives is
//! computed and thrown away, to the last row if the LIMIT is never filled. But rows come in order of distance: once bounds have passed
//! the threshold, none that is wanted follows. So when a query starts, the filter of each scan is searched for comparisons of what
//! the scan orders by with a number that is known by then: a constant, or a parameter of the statement.

use crate::server::lists::pointers;
use pgrx::{FromDatum, pg_sys};

/// Comparisons of double precision: less, less or equal, greater, greater or equal.
const LESS: [u32; 2] = [pg_sys::Float8LessOperator, 673];
const GREATER: [u32; 2] = [674, 675];

/// The least threshold of a scan's filter.
///
/// # Safety
/// The state of an index scan that has an ORDER BY and has not begun.
pub unsafe fn of(node: *mut pg_sys::PlanState) -> Option<f64> {
    // SAFETY: by contract; lists of expressions of the plan.
    unsafe {
        let plan = &*(*node).plan.cast::<pg_sys::IndexScan>();
        let ordered = pointers::<pg_sys::Node>(plan.indexorderbyorig).next()?;
        pointers::<pg_sys::Node>(plan.scan.plan.qual)
            .filter_map(|condition| threshold(node, condition, ordered))
            .min_by(f64::total_cmp)
    }
}

/// What `condition` says that `ordered` must not exceed.
///
/// # Safety
/// Expressions of the plan of `node`.
unsafe fn threshold(
    node: *mut pg_sys::PlanState,
    condition: *mut pg_sys::Node,
    ordered: *mut pg_sys::Node,
) -> Option<f64> {
    // SAFETY: by contract; an operator that compares has two arguments.
    unsafe {
        if (*condition).type_ != pg_sys::NodeTag::T_OpExpr {
            return None;
        }
        let call = &*condition.cast::<pg_sys::OpExpr>();
        let mut arguments = pointers::<pg_sys::Node>(call.args);
        let (left, right) = (arguments.next()?, arguments.next()?);
        let operator = call.opno.to_u32();
        let number = if LESS.contains(&operator) && pg_sys::equal(left.cast(), ordered.cast()) {
            right
        } else if GREATER.contains(&operator) && pg_sys::equal(right.cast(), ordered.cast()) {
            left
        } else {
            return None;
        };
        value(node, number)
    }
}

/// The value of a constant or of a parameter of the statement; `None` of anything else, and where it is no number.
///
/// # Safety
/// An expression of double precision of the plan of `node`.
unsafe fn value(node: *mut pg_sys::PlanState, number: *mut pg_sys::Node) -> Option<f64> {
    // SAFETY: by contract; a tag determines the type.
    let found = unsafe {
        if (*number).type_ == pg_sys::NodeTag::T_Const {
            let constant = &*number.cast::<pg_sys::Const>();
            f64::from_datum(constant.constvalue, constant.constisnull)
        } else if (*number).type_ == pg_sys::NodeTag::T_Param
            && (*number.cast::<pg_sys::Param>()).paramkind == pg_sys::ParamKind::PARAM_EXTERN
        {
            let state = pg_sys::ExecInitExpr(number.cast(), node);
            let context = (*node).ps_ExprContext;
            let mut is_null = false;
            let datum = (*state).evalfunc.map(|evaluate| {
                pgrx::pg_sys::ffi::pg_guard_ffi_boundary(|| evaluate(state, context, &raw mut is_null))
            })?;
            f64::from_datum(datum, is_null)
        } else {
            None
        }
    };
    found.filter(|distance| !distance.is_nan())
}
