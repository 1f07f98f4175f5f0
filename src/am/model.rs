//! The model of an index's vectors: results for a query by another model have no meaning. `WITH (model =
//! 'name')` states it, or else the declaration of the column, if it is maintained.
//!
//! The planner checks each index that it might use, so that the answer does not depend on whether it then reads the table
//! instead. A scan checks again, because only it has the values of parameters.

use super::opclass;
use super::options;
use crate::embed;
use crate::error::OrRaise;
use crate::pipeline;
use crate::server::{catalog, passing};
use crate::storage::Relation;
use pgrx::pg_sys;

/// The model of an index's vectors, as far as anybody said.
fn model_of(index: Relation) -> Option<String> {
    options::model(index).or_else(|| {
        let enqueue = catalog::function_beside(index.handler(), "imgvec_enqueue")?;
        pipeline::model_of_column(index.table_of_index(), index.first_column()?, enqueue)
    })
}

/// Refuses a query that is known to be of another model.
pub fn check(index: Relation, query: &[f32]) {
    if let Some(model) = model_of(index) {
        embed::check_origin(&index.name(), &model, query).or_raise();
    }
}

/// Refuses what a path orders by, if its value is known to the planner.
///
/// # Safety
/// The planner's structures; the relation is the path's index.
pub unsafe fn check_path(index: Relation, root: *mut pg_sys::PlannerInfo, path: &pg_sys::IndexPath) {
    if model_of(index).is_none() {
        return;
    }
    passing::keep();
    // SAFETY: by contract. ORDER BY of an index has operators with the column on their left; a constant on their right is a
    // vector.
    unsafe {
        for place in 0..pg_sys::list_length(path.indexorderbys) {
            let operator: *mut pg_sys::OpExpr = pg_sys::list_nth(path.indexorderbys, place).cast();
            if (*operator).xpr.type_ != pg_sys::NodeTag::T_OpExpr
                || pg_sys::list_length((*operator).args) != 2
            {
                continue;
            }
            let operand: *mut pg_sys::Node = pg_sys::list_nth((*operator).args, 1).cast();
            let value: *mut pg_sys::Const = pg_sys::estimate_expression_value(root, operand).cast();
            if (*value).xpr.type_ != pg_sys::NodeTag::T_Const {
                continue;
            }
            if let Some(query) = opclass::query((*value).constvalue, (*value).constisnull) {
                check(index, &query);
            }
        }
    }
}
