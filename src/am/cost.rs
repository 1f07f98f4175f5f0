//! What a scan costs, in the planner's units.
//!
//! A search has a start-up cost, the lookahead; how many more nodes it visits depends on the number of rows it
//! gives out (`expected_hops`). The planner takes a share of the run cost in
//! proportion, though. So the number of rows is foreseen from the LIMIT and the selectivity of the filter,
//! and the cost of all rows chosen such that the share comes out right: under a filter that keeps few rows,
//! computing their distances is cheaper than a search. Without ORDER BY the index cannot be scanned, and where a
//! row's ctid is asked for, or a plan would be wrong if a row came late, it must not be: see [`needs_ctid`] and
//! [`needs_order`].

use super::options;
use crate::storage::{Mode, Pages, Relation};
use imgvec_ann::graph::search::{DEFAULT_LOOKAHEAD, expected_hops, is_read_through};
use imgvec_ann::layout::Geometry;
use imgvec_ann::store::PageStore;
use pgrx::{pg_guard, pg_sys};

/// A page of the index in units of a random page: it is read from the buffers far more often than not,
/// and 32 neighbors are estimated on it.
const HOP_PAGES: f64 = 0.35;
/// Operators that a hop is worth: one exact distance and 32 estimates by table look-up.
const HOP_OPERATORS: f64 = 40.0;
/// A page in units of a sequential page, where all of an index is read in order.
const SWEEP_PAGES: f64 = 0.5;
/// Operators that a row is worth there: a distance and its place in the order.
const SWEEP_OPERATORS: f64 = 10.0;
/// Rows that are wanted if the LIMIT is a parameter without a value: nobody asks for a share of all neighbors.
const UNKNOWN_LIMIT: f64 = 100.0;
/// Share of the run cost that the planner takes for such a LIMIT.
const UNKNOWN_SHARE: f64 = 0.1;

#[allow(clippy::too_many_arguments, reason = "the server's signature")]
#[pg_guard]
pub unsafe extern "C-unwind" fn amcostestimate(
    root: *mut pg_sys::PlannerInfo,
    path: *mut pg_sys::IndexPath,
    _loop_count: f64,
    startup_cost: *mut pg_sys::Cost,
    total_cost: *mut pg_sys::Cost,
    selectivity: *mut pg_sys::Selectivity,
    correlation: *mut f64,
    pages: *mut f64,
) {
    // SAFETY: the planner passes a path over an index of ours, and places for the results.
    unsafe {
        let index = &*(*path).indexinfo;
        // Rows come in order of distance, not of the table.
        (*selectivity, *correlation) = (1.0, 0.0);
        *pages = f64::from(index.pages);
        if (*path).indexorderbys.is_null() || needs_ctid((*path).path.parent) || needs_order(&*root, &*path) {
            (*startup_cost, *total_cost) = (f64::INFINITY, f64::INFINITY);
            // Since 18 a path with fewer disabled nodes wins whatever it costs, and settings such as enable_seqscan and
            // enable_sort disable those of the plan that must be taken instead.
            #[cfg(feature = "pg18")]
            {
                (*path).path.disabled_nodes = 1000;
            }
            return;
        }
        let (mut random_page_cost, mut seq_page_cost) = (0.0, 0.0);
        pg_sys::get_tablespace_page_costs(
            index.reltablespace,
            &raw mut random_page_cost,
            &raw mut seq_page_cost,
        );
        let hop = random_page_cost * HOP_PAGES + pg_sys::cpu_operator_cost * HOP_OPERATORS;
        let rows = index.tuples.max(1.0);
        let (lookahead, geometry) = facts(index.indexoid);
        let matching = (*(*path).path.parent).rows.clamp(1.0, rows);
        let unknown = (*root).limit_tuples <= 0.0 && has_plain_limit(&*(*root).parse);
        let limit = if unknown { UNKNOWN_LIMIT } else { (*root).limit_tuples };
        let wanted = if limit > 0.0 { (limit * rows / matching).min(rows) } else { rows };
        let share = if unknown { UNKNOWN_SHARE } else { wanted / rows };
        let is_exact =
            wanted >= rows || geometry.is_some_and(|geometry| is_read_through(&geometry, index.pages));
        // What computes the query, such as embed_text('dog'), runs once.
        let query = pg_sys::index_other_operands_eval_cost(root, (*path).indexorderbys);
        let give_out = rows * pg_sys::cpu_index_tuple_cost;
        if is_exact {
            let compute = rows * (pg_sys::cpu_operator_cost * SWEEP_OPERATORS);
            *startup_cost = query + f64::from(index.pages) * seq_page_cost * SWEEP_PAGES + compute;
            *total_cost = *startup_cost + give_out;
        } else {
            let (first, all) =
                (expected_hops(lookahead, 0.0).min(rows), expected_hops(lookahead, wanted).min(rows));
            *startup_cost = query + first * hop;
            *total_cost = *startup_cost + (all - first) / share * hop + give_out;
        }
    }
}

/// How far a scan of an index will look ahead, and its geometry, which is unknown if the column does not tell its dimensions.
/// An index that is empty or damaged must not keep others from planning.
///
/// # Safety
/// `index` is an index of ours that the planner has locked.
#[allow(clippy::cast_precision_loss, reason = "a few thousand")]
unsafe fn facts(index: pg_sys::Oid) -> (f64, Option<Geometry>) {
    let no_lock = pg_sys::NoLock as pg_sys::LOCKMODE;
    // SAFETY: by contract; closed again, or by the server after an error.
    unsafe {
        let opened = pg_sys::index_open(index, no_lock);
        let relation = Relation::from_raw(opened);
        let dim = usize::try_from(relation.type_modifier(0)).ok();
        let geometry = dim.and_then(|dim| Geometry::new(dim).ok());
        let pages = Pages::new(relation, Mode::Normal);
        let known = pages.block_count() != Ok(0);
        let lookahead = known.then(|| options::lookahead(&pages).ok()).flatten().unwrap_or(DEFAULT_LOOKAHEAD);
        pg_sys::index_close(opened, no_lock);
        (lookahead as f64, geometry)
    }
}

/// Whether a query has a LIMIT that bounds the rows of its scans, not what is made of them.
fn has_plain_limit(query: &pg_sys::Query) -> bool {
    !query.limitCount.is_null()
        && query.groupClause.is_null()
        && query.groupingSets.is_null()
        && query.distinctClause.is_null()
        && query.setOperations.is_null()
        && !(query.hasAggs || query.hasWindowFuncs || query.hasTargetSRFs)
}

/// Whether the ctid of the relation's rows is wanted above its scan or in its filter, as it is by FOR UPDATE.
///
/// The server copies rows that wait for their exact distance, and their slot has then lost where they came from:
/// `ExecForceStoreHeapTuple` leaves `tts_tid` invalid. To lock or fetch a row by such a ctid reads block
/// 0xFFFFFFFF, which is the number that asks for a new block: the table gets a page that is damaged for good. GiST
/// suffers as well. A sort keeps the ctid.
///
/// # Safety
/// `relation` is the planner's, with its target list made.
unsafe fn needs_ctid(relation: *const pg_sys::RelOptInfo) -> bool {
    // SAFETY: lists of expressions of the planner; the result is memory of the planner's context.
    unsafe {
        let relation = &*relation;
        let mut columns = std::ptr::null_mut();
        let targets: *mut pg_sys::List = (*relation.reltarget).exprs;
        pg_sys::pull_varattnos(targets.cast(), relation.relid, &raw mut columns);
        let filters = pg_sys::extract_actual_clauses(relation.baserestrictinfo, false);
        pg_sys::pull_varattnos(filters.cast(), relation.relid, &raw mut columns);
        let ctid = pg_sys::SelfItemPointerAttributeNumber - pg_sys::FirstLowInvalidHeapAttributeNumber;
        pg_sys::bms_is_member(ctid, columns)
    }
}

/// Whether anything but an ORDER BY of the same query level hangs on the order of the scan: groups, distinct rows,
/// windows, ordered aggregates, set operations, `min()`, rows WITH TIES, a merge join. What hangs on the order of a subquery is the matter of
/// `order.rs`.
///
/// A scan that has given out all that it found in time gives what it found too late, by the end of a full scan or
/// under a filter that few rows pass. That beats to leave rows out where they are listed, but a row that comes late is a second
/// group of its distance, and a merge join of such rows an error. A sort costs little more than such a scan.
///
/// # Safety
/// Planner's structures, the path with its order.
unsafe fn needs_order(root: &pg_sys::PlannerInfo, path: &pg_sys::IndexPath) -> bool {
    // SAFETY: lists of the planner hold what their names say; a path by distance has pathkeys.
    unsafe {
        let query = &*root.parse;
        // What orders the input of a set operation, an aggregate, a window or groups is no ORDER BY of the query.
        if query.sortClause.is_null()
            || !root.window_pathkeys.is_null()
            || query.hasAggs
            || !query.groupClause.is_null()
            || !query.groupingSets.is_null()
            || !query.distinctClause.is_null()
            // Rows that are as far as the last: all that there are.
            || query.limitOption == pg_sys::LimitOption::LIMIT_OPTION_WITH_TIES
            || is_minimum(root)
        {
            return true;
        }
        let distance = pointers::<pg_sys::PathKey>(path.path.pathkeys).next().map(|key| (*key).pk_eclass);
        let is_distance = |class: *mut pg_sys::EquivalenceClass| Some(class) == distance;
        // A join by equality makes the sides members of one class, or, if it is an outer one, names their classes.
        let is_equal_to_other = distance.is_some_and(|class| {
            let members = pointers::<pg_sys::EquivalenceMember>((*class).ec_members);
            members.filter(|&member| !(*member).em_is_child).count() > 1
        });
        is_equal_to_other
            || pointers::<pg_sys::RestrictInfo>((*path.path.parent).joininfo)
                .any(|join| is_distance((*join).left_ec) || is_distance((*join).right_ec))
    }
}

/// Whether the query is what the server makes of `min(distance)`: ORDER BY with LIMIT 1. An aggregate is over all rows, also
/// those without a distance that are in no index, and its value no approximate one.
///
/// # Safety
/// Planner's structures.
unsafe fn is_minimum(root: &pg_sys::PlannerInfo) -> bool {
    // SAFETY: an aggregate's query is planned below the one that has the aggregate, and its column has this name.
    unsafe {
        let Some(parent) = root.parent_root.as_ref() else { return false };
        let mut targets = pointers::<pg_sys::TargetEntry>((*root.parse).targetList);
        (*parent.parse).hasAggs
            && root.limit_tuples == 1.0
            && targets.any(|target| {
                let name = (*target).resname;
                !name.is_null() && std::ffi::CStr::from_ptr(name) == c"agg_target"
            })
    }
}

/// The elements of a list.
///
/// # Safety
/// `list` is NULL or a list of pointers to `T` that nobody changes meanwhile.
pub(super) unsafe fn pointers<T>(list: *mut pg_sys::List) -> impl Iterator<Item = *mut T> {
    // SAFETY: by contract.
    let count = unsafe { list.as_ref() }.map_or(0, |list| usize::try_from(list.length).expect("a count"));
    // SAFETY: as many elements as the list says.
    (0..count).map(move |i| unsafe { (*(*list).elements.add(i)).ptr_value.cast() })
}
