//! Who relies on the order of a scan, and what is done about it.
//!
//! A search that stops early may find a row too late for its place, and gives it after all others. Where that is the
//! reader's to see, as under `ORDER BY ... LIMIT`, it is an approximate answer; where a node of the plan takes the order for
//! granted, it is a wrong one. So there are three rules.
//!
//! 1. A scan's order serves the ORDER BY of its own query level and nothing else: see `needs_order` in `cost.rs`.
//! 2. A subquery does not claim the order that such a scan gave it, so that what needs it above is sorted: the hook on
//!    upper paths. A query that only lists or orders the subquery's rows may trust it.
//! 3. A scan that no LIMIT bounds reads the whole index first and gives every row at its place, as it would have come to
//!    the last row anyway: the hook on the executor's start. So everything that reads rows in the order in which they come is
//!    right: cursors, INSERT and CREATE TABLE AS, `array_agg` over an ordered subquery.
//!
//! A filter of the scan's own distance ends the scan: see `threshold.rs`.
//!
//! Both hooks are set when the library is loaded, which is at the latest when the planner first meets an index of ours.

use super::cost::amcostestimate;
use super::{scan, threshold};
use crate::server::lists::pointers;
use crate::server::passing;
use crate::server::raw::{self, ExecutorStartHook, UpperPathsHook};
use pgrx::{pg_guard, pg_sys};
use std::cell::Cell;
use std::ffi::c_void;
use std::ptr;

thread_local! {
    static NEXT: Cell<(UpperPathsHook, ExecutorStartHook)> = const { Cell::new((None, None)) };
}

/// Puts the hooks in front of those of others; once in each process.
pub fn define() {
    NEXT.set(raw::install(Some(create_upper_paths), Some(executor_start)));
}

#[pg_guard]
unsafe extern "C-unwind" fn create_upper_paths(
    root: *mut pg_sys::PlannerInfo,
    stage: pg_sys::UpperRelationKind::Type,
    input: *mut pg_sys::RelOptInfo,
    output: *mut pg_sys::RelOptInfo,
    extra: *mut c_void,
) {
    passing::keep();
    // SAFETY: the planner's structures; a subquery has the query above it as its parent.
    unsafe {
        raw::upper_paths(NEXT.get().0, root, stage, input, output, extra);
        let parent = (*root).parent_root;
        if stage != pg_sys::UpperRelationKind::UPPERREL_FINAL || parent.is_null() {
            return;
        }
        let paths = (*output).pathlist;
        if !pointers::<pg_sys::Path>(paths).any(|path| is_in_order_of_ann(path))
            || only_lists_a_subquery(&*(*parent).parse)
        {
            return;
        }
        let count = usize::try_from((*paths).length).expect("a count");
        for i in 0..count {
            let cell = (*paths).elements.add(i);
            let path: *mut pg_sys::Path = (*cell).ptr_value.cast();
            if is_in_order_of_ann(path) {
                // A copy that adds nothing: the path itself may need its order to be made into a plan.
                let unordered =
                    pg_sys::create_projection_path(root, (*path).parent, path, (*path).pathtarget);
                (*unordered).path.pathkeys = ptr::null_mut();
                (*cell).ptr_value = unordered.cast();
            }
        }
    }
}

/// Whether a query takes its rows from a subquery as they come or puts them in order, and nothing else of it asks for an
/// order.
///
/// # Safety
/// A query that is being planned.
unsafe fn only_lists_a_subquery(query: &pg_sys::Query) -> bool {
    // SAFETY: lists and nodes hold what their names say; range table numbers begin at 1.
    unsafe {
        let from = (*query.jointree).fromlist;
        let mut sources = pointers::<pg_sys::Node>(from);
        let (Some(source), None) = (sources.next(), sources.next()) else { return false };
        if (*source).type_ != pg_sys::NodeTag::T_RangeTblRef {
            return false;
        }
        let number = usize::try_from((*source.cast::<pg_sys::RangeTblRef>()).rtindex).expect("a number");
        let Some(entry) = pointers::<pg_sys::RangeTblEntry>(query.rtable).nth(number - 1) else {
            return false;
        };
        (*entry).rtekind == pg_sys::RTEKind::RTE_SUBQUERY
            // Children of a UNION ALL are merged.
            && !(*entry).inh
            && query.groupClause.is_null()
            && query.groupingSets.is_null()
            && query.distinctClause.is_null()
            && query.setOperations.is_null()
            && query.cteList.is_null()
            && query.limitOption != pg_sys::LimitOption::LIMIT_OPTION_WITH_TIES
            && !(query.hasAggs || query.hasWindowFuncs || query.hasSubLinks)
    }
}

/// Whether a path has its order from a scan of an index of ours, without a sort in between.
///
/// # Safety
/// A path of the planner.
#[allow(clippy::wildcard_enum_match_arm, reason = "of the hundreds of tags few matter")]
unsafe fn is_in_order_of_ann(path: *const pg_sys::Path) -> bool {
    use pg_sys::NodeTag as Tag;
    // SAFETY: a path's tag determines its type; all joins begin with a JoinPath.
    unsafe {
        if path.is_null() || (*path).pathkeys.is_null() {
            return false;
        }
        let any = |paths| pointers::<pg_sys::Path>(paths).any(|path| is_in_order_of_ann(path));
        match (*path).type_ {
            Tag::T_IndexPath => is_ann(&*path.cast::<pg_sys::IndexPath>()),
            Tag::T_ProjectionPath => is_in_order_of_ann((*path.cast::<pg_sys::ProjectionPath>()).subpath),
            Tag::T_ProjectSetPath => is_in_order_of_ann((*path.cast::<pg_sys::ProjectSetPath>()).subpath),
            Tag::T_SubqueryScanPath => is_in_order_of_ann((*path.cast::<pg_sys::SubqueryScanPath>()).subpath),
            Tag::T_MaterialPath => is_in_order_of_ann((*path.cast::<pg_sys::MaterialPath>()).subpath),
            Tag::T_IncrementalSortPath => {
                is_in_order_of_ann((*path.cast::<pg_sys::IncrementalSortPath>()).spath.subpath)
            }
            Tag::T_LimitPath => is_in_order_of_ann((*path.cast::<pg_sys::LimitPath>()).subpath),
            Tag::T_LockRowsPath => is_in_order_of_ann((*path.cast::<pg_sys::LockRowsPath>()).subpath),
            Tag::T_WindowAggPath => is_in_order_of_ann((*path.cast::<pg_sys::WindowAggPath>()).subpath),
            Tag::T_AggPath => is_in_order_of_ann((*path.cast::<pg_sys::AggPath>()).subpath),
            Tag::T_GroupPath => is_in_order_of_ann((*path.cast::<pg_sys::GroupPath>()).subpath),
            Tag::T_UpperUniquePath => is_in_order_of_ann((*path.cast::<pg_sys::UpperUniquePath>()).subpath),
            Tag::T_GatherPath => is_in_order_of_ann((*path.cast::<pg_sys::GatherPath>()).subpath),
            Tag::T_GatherMergePath => is_in_order_of_ann((*path.cast::<pg_sys::GatherMergePath>()).subpath),
            Tag::T_AppendPath => any((*path.cast::<pg_sys::AppendPath>()).subpaths),
            Tag::T_MergeAppendPath => any((*path.cast::<pg_sys::MergeAppendPath>()).subpaths),
            Tag::T_NestPath | Tag::T_MergePath | Tag::T_HashPath => {
                is_in_order_of_ann((*path.cast::<pg_sys::JoinPath>()).outerjoinpath)
            }
            _ => false,
        }
    }
}

/// Whether a path is a scan of an index of ours by distance.
///
/// # Safety
/// A path of the planner.
unsafe fn is_ann(path: &pg_sys::IndexPath) -> bool {
    // SAFETY: the planner describes the index for as long as it plans.
    let estimate = unsafe { (*path.indexinfo).amcostestimate };
    !path.indexorderbys.is_null()
        && estimate.is_some_and(|f| f as usize == amcostestimate as *const () as usize)
}

#[pg_guard]
unsafe extern "C-unwind" fn executor_start(query: *mut pg_sys::QueryDesc, flags: std::ffi::c_int) {
    passing::keep();
    // SAFETY: the executor's own hook; afterwards the states of all nodes exist, subplans listed apart.
    unsafe {
        raw::executor_start(NEXT.get().1, query, flags);
        if flags.cast_unsigned() & pg_sys::EXEC_FLAG_EXPLAIN_ONLY != 0 || (*query).planstate.is_null() {
            return;
        }
        visit((*query).planstate, false);
        for subplan in pointers::<pg_sys::PlanState>((*(*query).estate).es_subplanstates) {
            visit(subplan, false);
        }
    }
}

/// Asks for exact scans of our indexes at and below a node whose rows are read `bounded` by a LIMIT or to the last.
///
/// # Safety
/// A node's state, or NULL, in a query that has not run yet.
#[allow(clippy::wildcard_enum_match_arm, reason = "of the hundreds of tags few matter")]
unsafe fn visit(node: *mut pg_sys::PlanState, bounded: bool) {
    use pg_sys::NodeTag as Tag;
    if node.is_null() {
        return;
    }
    // SAFETY: a state's tag determines its type; a node without a state of its own is not in the tree.
    unsafe {
        pg_sys::check_stack_depth();
        let mut bounded = bounded;
        match (*node).type_ {
            Tag::T_IndexScanState => {
                let state = &*node.cast::<pg_sys::IndexScanState>();
                let count = usize::try_from(state.iss_NumOrderByKeys).expect("a count");
                if count > 0 && !state.iss_RelationDesc.is_null() && scan::is_ours(state.iss_RelationDesc) {
                    let keys = std::slice::from_raw_parts_mut(state.iss_OrderByKeys, count);
                    if !bounded {
                        scan::ask_exact(keys);
                    }
                    if let Some(distance) = threshold::of(node) {
                        let kept = pg_sys::palloc(size_of::<f64>()).cast::<f64>();
                        *kept = distance;
                        scan::ask_within(&mut keys[0], kept);
                    }
                }
            }
            Tag::T_LimitState => bounded = bounds(&*(*node).plan.cast::<pg_sys::Limit>()) || bounded,
            // Whatever is wanted of these, they read all rows first.
            Tag::T_SortState | Tag::T_AggState | Tag::T_HashState | Tag::T_SetOpState => bounded = false,
            _ => {}
        }
        pg_sys::planstate_tree_walker(node, Some(visit_child), (&raw mut bounded).cast());
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn visit_child(node: *mut pg_sys::PlanState, bounded: *mut c_void) -> bool {
    // SAFETY: `visit` passes its flag.
    unsafe { visit(node, *bounded.cast::<bool>()) };
    false
}

/// Whether a LIMIT will be met before the rows below it have come to their end, as far as the planner knows.
///
/// # Safety
/// A node of a plan.
unsafe fn bounds(limit: &pg_sys::Limit) -> bool {
    // SAFETY: a constant's tag says that it is one; a LIMIT is a bigint.
    let constant = |node: *const pg_sys::Node| unsafe {
        let is_constant = (*node).type_ == pg_sys::NodeTag::T_Const;
        let value = node.cast::<pg_sys::Const>();
        is_constant.then(|| (!(*value).constisnull).then(|| (*value).constvalue.value().cast_signed() as f64))
    };
    if limit.limitCount.is_null() {
        return false;
    }
    let offset = if limit.limitOffset.is_null() { Some(None) } else { constant(limit.limitOffset) };
    match (constant(limit.limitCount), offset) {
        // LIMIT NULL.
        (Some(None), _) => false,
        // SAFETY: a LIMIT has something below it.
        (Some(Some(count)), Some(offset)) => unsafe {
            count + offset.unwrap_or(0.0) < (*limit.plan.lefttree).plan_rows
        },
        // A parameter.
        _ => true,
    }
}
