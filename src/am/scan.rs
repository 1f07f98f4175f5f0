//! Ordered scans: return rows by ascending distance, for as long as the executor asks.
//!
//! Each row has a lower bound of its distance. The executor computes the exact distance and keeps the row
//! until the bounds have passed it, so rows leave the plan node in exact order. If bounds do not overlap, the
//! order is known without that, and the executor need not read the vector. Under a filter it discards most rows
//! without reading them.

use super::keys::KeyColumns;
use super::opclass;
use super::{cache, model, options, stats, waiting};
use crate::error::index::{damage, no_such_row, other_columns, vector as bad_vector};
use crate::error::{Code, OrRaise, Report};
use crate::storage::{Pages, Relation};
use crate::{fault, guc};
use imgvec_ann::Index;
use imgvec_ann::filter::Filter;
use imgvec_ann::graph::search::{Hit, Options, Search};
use pgrx::datum::IntoDatum;
use pgrx::{PgMemoryContexts, pg_guard, pg_sys};
use std::rc::Rc;

/// Of a scan key's flags, one that is an access method's to use: the scan is read to the last row. See `order.rs`.
const EXACT: i32 = 1 << 16;

/// Another one: the function's extra pointer leads to the distance beyond which no row is wanted.
const WITHIN: i32 = 1 << 17;

/// Whether an index is one of this access method.
///
/// # Safety
/// An open index.
pub unsafe fn is_ours(index: pg_sys::Relation) -> bool {
    // SAFETY: an open index has its access method's routines.
    let begin = unsafe { (*(*index).rd_indam).ambeginscan };
    begin.is_some_and(|f| f as usize == ambeginscan as *const () as usize)
}

/// Asks a scan to give every row at its place.
pub fn ask_exact(order_bys: &mut [pg_sys::ScanKeyData]) {
    for key in order_bys {
        key.sk_flags |= EXACT;
    }
}

/// Lets a scan end where rows are farther than `distance`, which lives as long as the scan.
pub fn ask_within(order_by: &mut pg_sys::ScanKeyData, distance: *mut f64) {
    order_by.sk_flags |= WITHIN;
    // Nobody calls the function of an ordering operator but the access method, which does not.
    order_by.sk_func.fn_extra = distance.cast();
}

/// A scan's state, in the memory context of the scan.
#[derive(Default)]
struct Scan {
    running: Option<Running>,
}

/// A search under way.
struct Running {
    index: Rc<Index>,
    search: Search,
    /// `ORDER BY embedding <=> NULL`: every distance is NULL, every row comes, in any order.
    query_is_null: bool,
    given: u64,
    max_rows: Option<u64>,
    /// Whether rows that come too late for their place are left out.
    is_strict: bool,
    is_over: bool,
}

impl Running {
    fn start(
        pages: &Pages,
        query: Option<&[f32]>,
        exact: bool,
        within: f64,
        keys: &[pg_sys::ScanKeyData],
    ) -> Self {
        let relation = pages.relation();
        let index = cache::open(pages);
        let lookahead = options::lookahead(pages).map_err(|error| damage(relation, error)).or_raise();
        let options = Options { lookahead, prefetch: true, exact, within };
        let nowhere;
        let vector = match query {
            Some(vector) => vector,
            None => {
                nowhere = vec![0.0; index.space().geometry().dim()];
                &nowhere
            }
        };
        let columns = KeyColumns::of(relation);
        if columns.kinds() != index.space().geometry().columns() {
            other_columns(relation).raise();
        }
        // SAFETY: the server passes scan keys of the index.
        let filter = Filter::new(index.space().columns(), unsafe { columns.conditions(keys) });
        let search = Search::filtered(&index, vector, filter, &options)
            .map_err(|error| bad_vector(relation, error))
            .or_raise();
        let max_rows = options::max_scan_rows(relation);
        Self {
            index,
            search,
            query_is_null: query.is_none(),
            given: 0,
            max_rows,
            is_strict: query.is_some() && guc::strict_order(),
            is_over: false,
        }
    }

    fn next(&mut self, pages: &Pages) -> Option<Hit> {
        let relation = pages.relation();
        if self.is_over {
            return None;
        }
        if self.max_rows.is_some_and(|max| self.given >= max) {
            stats::count_limited(relation);
            Report::new(
                Code::ERRCODE_SUCCESSFUL_COMPLETION,
                format!("scan of index \"{}\" ended after {} rows", relation.name(), self.given),
            )
            .detail("The query may have more matching rows.")
            .hint("Raise imgvec.max_scan_rows, or index the columns of the filter.")
            .notice();
            return None;
        }
        let hit = self.search.next(pages, &self.index).map_err(|error| damage(relation, error)).or_raise();
        // After a late row there are none but late ones.
        if let Some(Hit { late: true, .. }) = hit
            && self.is_strict
        {
            Report::new(
                Code::ERRCODE_SUCCESSFUL_COMPLETION,
                format!("scan of index \"{}\" omitted rows that came out of order after {}", relation.name(), self.given),
            )
            .detail("They are nearer than rows that had already been returned.")
            .hint("Raise imgvec.target_recall, or set imgvec.strict_order to off to return them after the others.")
            .notice();
            self.is_over = true;
            return None;
        }
        self.given += u64::from(hit.is_some());
        hit
    }
}

#[pg_guard]
pub unsafe extern "C-unwind" fn ambeginscan(
    index: pg_sys::Relation,
    keys: std::ffi::c_int,
    order_bys: std::ffi::c_int,
) -> pg_sys::IndexScanDesc {
    let count = usize::try_from(order_bys).expect("a count");
    fault::point("begin a scan");
    // SAFETY: the server's constructor; arrays and state live in the current context, as the scan does.
    unsafe {
        let scan = pg_sys::RelationGetIndexScan(index, keys, order_bys);
        if count > 0 {
            (*scan).xs_orderbyvals = pg_sys::palloc0(count * size_of::<pg_sys::Datum>()).cast();
            (*scan).xs_orderbynulls = pg_sys::palloc0(count * size_of::<bool>()).cast();
        }
        (*scan).opaque =
            PgMemoryContexts::CurrentMemoryContext.leak_and_drop_on_delete(Scan::default()).cast();
        scan
    }
}

#[pg_guard]
pub unsafe extern "C-unwind" fn amrescan(
    scan: pg_sys::IndexScanDesc,
    keys: pg_sys::ScanKey,
    key_count: std::ffi::c_int,
    order_bys: pg_sys::ScanKey,
    order_by_count: std::ffi::c_int,
) {
    fault::point("start a scan again");
    // SAFETY: a scan that ambeginscan made; the server passes as many ORDER BY keys as it announced.
    unsafe {
        let desc = &mut *scan;
        let relation = Relation::from_raw(desc.indexRelation);
        finish(relation, state(desc));
        if !keys.is_null() && key_count > 0 {
            let count = usize::try_from(key_count).expect("positive");
            std::ptr::copy(keys, desc.keyData, count);
        }
        if !order_bys.is_null() && order_by_count > 0 {
            let count = usize::try_from(order_by_count).expect("positive");
            std::ptr::copy(order_bys, desc.orderByData, count);
        }
    }
}

#[pg_guard]
pub unsafe extern "C-unwind" fn amgettuple(
    scan: pg_sys::IndexScanDesc,
    direction: pg_sys::ScanDirection::Type,
) -> bool {
    assert!(direction == pg_sys::ScanDirection::ForwardScanDirection, "ann cannot scan backward");
    fault::point("fetch the next row");
    // SAFETY: a scan that ambeginscan made and amrescan gave its keys.
    unsafe {
        let desc = &mut *scan;
        let relation = Relation::from_raw(desc.indexRelation);
        let order_bys = usize::try_from(desc.numberOfOrderBys).expect("a count");
        if order_bys == 0 {
            no_order(relation);
        }
        let pages = Pages::of_scan(relation, desc.xs_snapshot);
        if state(desc).running.is_none() {
            if waiting::is_waiting(relation) {
                return false;
            }
            let key = &*desc.orderByData;
            let is_null = key.sk_flags & pg_sys::SK_ISNULL as i32 != 0;
            let is_within = key.sk_flags & WITHIN != 0 && !is_null;
            let within = if is_within { *key.sk_func.fn_extra.cast::<f64>() } else { f64::INFINITY };
            let query = opclass::query(key.sk_argument, is_null);
            if let Some(query) = query.as_deref() {
                model::check(relation, query);
            }
            stats::count_scan(relation);
            let keys = match usize::try_from(desc.numberOfKeys).expect("a count") {
                0 => &[],
                count => std::slice::from_raw_parts(desc.keyData, count),
            };
            let running = Running::start(&pages, query.as_deref(), key.sk_flags & EXACT != 0, within, keys);
            state(desc).running = Some(running);
        }
        let running = state(desc).running.as_mut().expect("started above");
        let Some(hit) = running.next(&pages) else {
            return false;
        };
        // Else the server would look for it, or, by the number that asks for a new block, add one to the table.
        if !desc.heapRelation.is_null() && !Relation::from_raw(desc.heapRelation).has_block(hit.tid.block) {
            no_such_row(relation, hit.tid).raise();
        }
        let is_null = running.query_is_null;
        pgrx::itemptr::item_pointer_set_all(&mut desc.xs_heaptid, hit.tid.block, hit.tid.offset);
        // A second ORDER BY operator on the vector only decides between equal distances.
        for i in 0..order_bys {
            let bound = if i == 0 { hit.claimed_bound() } else { f64::NEG_INFINITY };
            *desc.xs_orderbyvals.add(i) = bound.into_datum().expect("a number");
            *desc.xs_orderbynulls.add(i) = is_null && i == 0;
        }
        // Keys distinguish values as far as eight bytes do.
        desc.xs_recheck = desc.numberOfKeys > 0;
        desc.xs_recheckorderby = !hit.placed;
        true
    }
}

#[pg_guard]
pub unsafe extern "C-unwind" fn amendscan(scan: pg_sys::IndexScanDesc) {
    fault::point("end a scan");
    // SAFETY: a scan that ambeginscan made. The rest of its state goes with the memory context.
    unsafe {
        let relation = Relation::from_raw((*scan).indexRelation);
        finish(relation, state(&mut *scan));
    }
}

/// Ends a search and keeps what it cost.
fn finish(relation: Relation, scan: &mut Scan) {
    if let Some(running) = scan.running.take() {
        stats::add(relation, &running.search.stats(), running.given);
    }
}

/// # Safety
/// `desc` is a scan that ambeginscan made.
unsafe fn state<'a>(desc: &mut pg_sys::IndexScanDescData) -> &'a mut Scan {
    // SAFETY: ambeginscan put it there; only one callback of a scan runs at a time.
    unsafe { &mut *desc.opaque.cast::<Scan>() }
}

fn no_order(index: Relation) -> ! {
    Report::new(
        Code::ERRCODE_FEATURE_NOT_SUPPORTED,
        format!("index \"{}\" cannot be scanned without ORDER BY", index.name()),
    )
    .detail("Rows without a vector are not in an ann index.")
    .hint("Order by a distance, or SET enable_seqscan = on.")
    .raise()
}
