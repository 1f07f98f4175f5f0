//! The cost of a scan, in the planner's units.
//!
//! The planner chooses between this index and a sort of the whole table. Both read pages that may be in memory or not,
//! in the same proportion, so only the ratio matters: how many rows of the table cost as much as one search. It is computed from times that
//! `make bench-crossover` measures, and then expressed in the planner's own price for a row of this table, which includes the server's settings
//! and the widths of the table's columns: see [`Exchange`].
//!
//! A search has a start-up cost, the lookahead. The number of further nodes that it visits depends on the number of rows that it
//! returns (`expected_hops`). The planner, however, takes a share of the run cost in proportion to the rows.
//! So the number of rows is estimated from the LIMIT and the selectivity of the filter,
//! and the cost of all rows is chosen so that the share is right. If a filter keeps few rows,
//! computing their distances is cheaper than a search. The index cannot be scanned without ORDER BY. It must not be used if the query needs a
//! row's ctid, or if rows out of order would make a plan wrong: see [`needs_ctid`] and [`needs_order`].

use super::{model, options};
use crate::server::lists::pointers;
use crate::server::version;
use crate::storage::{Mode, Pages, Relation};
use crate::types::price::{Shape, column_width};
use imgvec_ann::Index;
use imgvec_ann::graph::filtered::LEAST_LOOKAHEAD;
use imgvec_ann::graph::search::{
    DEFAULT_LOOKAHEAD, expected_hops, filtered_hops, is_read_through, most_hops,
};
use imgvec_ann::layout::Geometry;
use imgvec_ann::store::PageStore;
use pgrx::{pg_guard, pg_sys};

/// Nanoseconds, of a table in memory: a page; a row with its place in the sort, beside its distance.
const PAGE_NS: f64 = 320.0;
const ROW_NS: f64 = 190.0;
/// Of a search, beyond what a scan of the table takes to begin: opening the index and preparing the query.
const START_NS: f64 = 6_000.0;
const START_DIMENSION_NS: f64 = 44.0;
/// Of a hop: one page of the index, one distance to eight bits, 32 estimates by look-up; each dimension of those.
const HOP_NS: f64 = 900.0;
const HOP_DIMENSION_NS: f64 = 0.7;
/// Of an index that is read through: a page; a node with its place in the order, and each of its dimensions, of which more do
/// not show beside their page.
const SWEPT_PAGE_NS: f64 = 113.0;
const SWEPT_NODE_NS: f64 = 192.0;
const SWEPT_DIMENSION_NS: f64 = 0.21;
const SWEPT_DIMENSIONS: f64 = 1024.0;
/// What a scan of all rows is priced at, as a share of its time. It takes about as long as a sort of the table; but whoever asks for
/// all rows in this order mostly wants the first, as a cursor of another server does, and gets only these from the table.
const WHOLE_SHARE: f64 = 0.7;
/// Rows that are fetched for each that is returned, before the executor knows that none is nearer.
const FETCHED_ROWS: f64 = 1.2;
/// Share of a hop that follows `random_page_cost`, of which the times are about the server's default.
const RANDOM_SHARE: f64 = 0.5;
const USUAL_RANDOM_PAGES: f64 = 4.0;
/// What a scan costs that must not be, far beyond what the server adds for disabled plans. Infinity would not do: a LIMIT takes
/// a share of it, which is no number, and the planner takes that for cheap.
const FORBIDDEN: f64 = 1e30;
/// Rows that are wanted if the LIMIT is a parameter without a value: nobody asks for a share of all neighbors.
const UNKNOWN_LIMIT: f64 = 100.0;
/// Share of the run cost that the planner takes for such a LIMIT.
const UNKNOWN_SHARE: f64 = 0.1;

#[allow(clippy::too_many_arguments, reason = "the server's signature")]
#[pg_guard]
pub unsafe extern "C-unwind" fn amcostestimate(
    root: *mut pg_sys::PlannerInfo,
    path: *mut pg_sys::IndexPath,
    loop_count: f64,
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
            forbid(path, startup_cost, total_cost);
            return;
        }
        if asks_for_null(&*path) {
            forbid(path, startup_cost, total_cost);
            return;
        }
        version::complete_conditions(root, &mut *path);
        // Rows that the conditions on key columns let pass.
        let share_of_keys = key_selectivity(root, &*path);
        *selectivity = share_of_keys;
        let all_rows = index.tuples.max(1.0);
        let rows = (all_rows * share_of_keys).max(1.0);
        let facts = facts(index.indexoid, root, &*path);
        let width =
            column_width(root, (*(*path).path.parent).relid, i16::try_from(*index.indexkeys).unwrap_or(0));
        let shape = Shape::new(facts.type_modifier, width);
        let matching = (*path).path.rows.clamp(1.0, rows);
        let unknown = (*root).limit_tuples <= 0.0 && has_plain_limit(&*(*root).parse);
        let limit = if unknown { UNKNOWN_LIMIT } else { (*root).limit_tuples };
        let wanted = if limit > 0.0 { (limit * rows / matching).min(rows) } else { rows };
        let share = if unknown { UNKNOWN_SHARE } else { wanted / rows };
        let exchange = Exchange::new(root, &*path, shape, wanted);
        let is_exact =
            wanted >= rows || facts.geometry.is_some_and(|geometry| is_read_through(&geometry, index.pages));
        let begin = START_NS + START_DIMENSION_NS * shape.dim;
        let node_ns = SWEPT_NODE_NS + SWEPT_DIMENSION_NS * shape.dim.min(SWEPT_DIMENSIONS);
        let share_of_sweep = if wanted < rows { 1.0 } else { WHOLE_SHARE };
        let sweep = (f64::from(index.pages) * SWEPT_PAGE_NS + rows * node_ns) * share_of_sweep;
        #[allow(clippy::cast_precision_loss, reason = "a small number")]
        let (harder, lookahead) = if share_of_keys < 1.0 {
            let lookahead = facts.lookahead.max(LEAST_LOOKAHEAD as f64);
            (filtered_hops(share_of_keys, lookahead), lookahead)
        } else {
            (1.0, facts.lookahead)
        };
        let (start_ns, all_ns) = if is_exact {
            (begin + sweep, begin + sweep)
        } else {
            let hop = (HOP_NS + HOP_DIMENSION_NS * shape.dim) * exchange.random_weight;
            // A walk that finds no end is ended by reading all pages.
            let hops = |wanted: f64| {
                let (hops, most) =
                    ((harder * expected_hops(lookahead, wanted)).min(all_rows), most_hops(index.pages));
                if hops > most { most * hop + sweep } else { hops * hop }
            };
            let (first, all) = (hops(0.0), hops(wanted));
            (begin + first, begin + first + (all - first) / share)
        };
        // What computes the query, such as embed_text('dog'), runs once.
        let query = pg_sys::index_other_operands_eval_cost(root, (*path).indexorderbys);
        // The distance of each row is computed once more.
        let give_out = rows * (pg_sys::cpu_index_tuple_cost + FETCHED_ROWS * exchange.distance_cost);
        *startup_cost = query + start_ns * exchange.cost_of_ns;
        *total_cost = query + all_ns * exchange.cost_of_ns + give_out;
        if wanted < rows {
            // The server adds pages at random for the rows, as if none were in memory, where it counts those of the table as
            // pages in sequence: what that is more than their time is taken off again.
            let added = exchange.fetch_cost(root, &*path, rows, loop_count);
            let needed = rows * PAGE_NS * exchange.random_weight * FETCHED_ROWS * exchange.cost_of_ns;
            *total_cost -= (added - needed).max(0.0);
        }
    }
}

/// Prices a path that must not be taken.
///
/// # Safety
/// A path of the planner, and places for the costs.
unsafe fn forbid(
    path: *mut pg_sys::IndexPath,
    startup_cost: *mut pg_sys::Cost,
    total_cost: *mut pg_sys::Cost,
) {
    // SAFETY: by contract.
    unsafe {
        (*startup_cost, *total_cost) = (FORBIDDEN, FORBIDDEN);
        version::disable(&mut (*path).path);
    }
}

/// The share of rows that the conditions on key columns let pass.
///
/// # Safety
/// The planner's structures.
unsafe fn key_selectivity(root: *mut pg_sys::PlannerInfo, path: &pg_sys::IndexPath) -> f64 {
    // SAFETY: by contract; the list is memory of the planner's context.
    unsafe {
        let mut conditions = std::ptr::null_mut();
        for clause in pointers::<pg_sys::IndexClause>(path.indexclauses) {
            conditions = pg_sys::lappend(conditions, (*clause).rinfo.cast());
        }
        if conditions.is_null() {
            return 1.0;
        }
        let relation = i32::try_from((*path.path.parent).relid).expect("a small number");
        let inner = pg_sys::JoinType::JOIN_INNER;
        pg_sys::clauselist_selectivity(root, conditions, relation, inner, std::ptr::null_mut())
            .clamp(0.0, 1.0)
    }
}

/// Whether a condition asks for rows without a vector, which are in no index.
///
/// # Safety
/// The planner's structures.
unsafe fn asks_for_null(path: &pg_sys::IndexPath) -> bool {
    // SAFETY: by contract; what a condition on a column that has no operator for one can be is a test for NULL.
    unsafe {
        pointers::<pg_sys::IndexClause>(path.indexclauses).filter(|&clause| (*clause).indexcol == 0).any(
            |clause| {
                let test = (*(*clause).rinfo).clause.cast::<pg_sys::NullTest>();
                (*test).xpr.type_ == pg_sys::NodeTag::T_NullTest
                    && (*test).nulltesttype == pg_sys::NullTestType::IS_NULL
            },
        )
    }
}

/// Turns nanoseconds into the planner's units.
struct Exchange {
    /// What the planner asks for a row of the table, by the time that the row takes.
    cost_of_ns: f64,
    /// What it asks for one distance.
    distance_cost: f64,
    random_page_cost: f64,
    /// How much dearer than usual a page at random is.
    random_weight: f64,
}

impl Exchange {
    /// # Safety
    /// The planner's structures; the path has its ORDER BY.
    unsafe fn new(
        root: *mut pg_sys::PlannerInfo,
        path: &pg_sys::IndexPath,
        shape: Shape,
        wanted: f64,
    ) -> Self {
        // SAFETY: by contract; an ORDER BY operator is a call of an operator.
        unsafe {
            let table = &*path.path.parent;
            let (mut random_page_cost, mut seq_page_cost) = (0.0, 0.0);
            pg_sys::get_tablespace_page_costs(
                table.reltablespace,
                &raw mut random_page_cost,
                &raw mut seq_page_cost,
            );
            let mut distance = pg_sys::QualCost::default();
            if let Some(call) = pointers::<pg_sys::OpExpr>(path.indexorderbys).next() {
                pg_sys::set_opfuncid(call);
                pg_sys::add_function_cost(root, (*call).opfuncid, call.cast(), &raw mut distance);
            }
            let pages = f64::from(table.pages) / table.tuples.max(1.0);
            // As the server prices a sort: of all rows, or of those that stay among the first.
            let sort = 2.0 * pg_sys::cpu_operator_cost * (2.0 * wanted).max(2.0).log2();
            let row_cost = pages * seq_page_cost + pg_sys::cpu_tuple_cost + distance.per_tuple + sort;
            let row_ns = pages * PAGE_NS + ROW_NS + shape.distance_ns();
            let random =
                if seq_page_cost > 0.0 { random_page_cost / seq_page_cost } else { USUAL_RANDOM_PAGES };
            Self {
                cost_of_ns: row_cost / row_ns,
                distance_cost: distance.per_tuple,
                random_page_cost,
                random_weight: 1.0 + RANDOM_SHARE * (random / USUAL_RANDOM_PAGES - 1.0),
            }
        }
    }

    /// What the server will add to the cost of a scan for fetching all rows of the index.
    ///
    /// # Safety
    /// The planner's structures.
    unsafe fn fetch_cost(
        &self,
        root: *mut pg_sys::PlannerInfo,
        path: &pg_sys::IndexPath,
        rows: f64,
        loop_count: f64,
    ) -> f64 {
        // SAFETY: by contract.
        unsafe {
            let loops = loop_count.max(1.0);
            let table_pages = (*path.path.parent).pages;
            let index_pages = f64::from((*path.indexinfo).pages);
            let fetched = pg_sys::index_pages_fetched(rows * loops, table_pages, index_pages, root);
            fetched / loops * self.random_page_cost
        }
    }
}

/// What the planner does not know of an index.
struct Facts {
    /// How far a scan will look ahead.
    lookahead: f64,
    /// Of its column; -1 if that does not tell the number of dimensions.
    type_modifier: i32,
    /// Unknown while it has no pages.
    geometry: Option<Geometry>,
}

/// Asks an index. One that is empty or damaged must not keep others from planning.
///
/// # Safety
/// `index` is an index of ours that the planner has locked.
#[allow(clippy::cast_precision_loss, reason = "a few thousand")]
unsafe fn facts(index: pg_sys::Oid, root: *mut pg_sys::PlannerInfo, path: &pg_sys::IndexPath) -> Facts {
    let no_lock = pg_sys::NoLock as pg_sys::LOCKMODE;
    // SAFETY: by contract; closed again, or by the server after an error.
    unsafe {
        let opened = pg_sys::index_open(index, no_lock);
        let relation = Relation::from_raw(opened);
        model::check_path(relation, root, path);
        let type_modifier = relation.type_modifier(0);
        let pages = Pages::new(relation, Mode::Normal);
        let known = pages.block_count() != Ok(0);
        let lookahead = known.then(|| options::lookahead(&pages).ok()).flatten().unwrap_or(DEFAULT_LOOKAHEAD);
        let geometry = known.then(|| Index::geometry(&pages).ok()).flatten();
        pg_sys::index_close(opened, no_lock);
        Facts { lookahead: lookahead as f64, type_modifier, geometry }
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
/// A scan that has returned all that it found in time gives what it found too late, by the end of a full scan or
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
