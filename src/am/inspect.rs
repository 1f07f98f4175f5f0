//! Looking into an index: what it is, whether it is sound, how well it finds.

use super::build::memory_bytes;
use super::index_rows::IndexRows;
use super::opclass::OpClass;
use super::table::Table;
use super::{cache, stats};
use crate::error::index::{damage, not_valid};
use crate::error::{Code, OrRaise, Report};
use crate::storage::{Mode, OpenRelation, Pages};
use crate::types::datum::{NewRecord, NewText};
use imgvec_ann::Metric;
use imgvec_ann::graph::check::{self, CheckReport};
use imgvec_ann::layout::{FORMAT_VERSION, HeapTid};
use imgvec_ann::store::PageStore;
use imgvec_vector::distance;
use pgrx::iter::TableIterator;
use pgrx::prelude::*;
use std::ops::Range;

/// Problems that an error lists.
const LISTED: usize = 5;

/// An index of ours and its table, open and locked.
struct Opened {
    heap: OpenRelation,
    index: OpenRelation,
}

impl Opened {
    fn new(index: pg_sys::Oid, lock: u32) -> Self {
        let lock = pg_sys::LOCKMODE::try_from(lock).expect("a lock mode");
        // SAFETY: looks into the catalogs.
        let (table, wanted) = unsafe { (pg_sys::IndexGetRelation(index, true), handler()) };
        // Table first, as everybody does.
        let heap = (table != pg_sys::InvalidOid).then(|| OpenRelation::try_open(table, lock)).flatten();
        let opened = OpenRelation::try_open(index, lock);
        match (heap, opened) {
            (Some(heap), Some(index)) if wanted.is_some_and(|handler| index.is_index_of(handler)) => {
                Self { heap, index }
            }
            (_, Some(relation)) => Report::new(
                Code::ERRCODE_WRONG_OBJECT_TYPE,
                format!("\"{}\" is not an ann index", relation.name()),
            )
            .detail("It is a table, or an index of another kind.")
            .hint("Name an index that was created with USING ann; each partition has its own.")
            .raise(),
            (_, None) => Report::new(
                Code::ERRCODE_UNDEFINED_OBJECT,
                format!("index with oid {} does not exist", index.to_u32()),
            )
            .detail("It may have been dropped meanwhile.")
            .hint("Name the index, as in 'photos_embedding_idx'::regclass.")
            .raise(),
        }
    }

    fn pages(&self) -> Pages<'_> {
        Pages::new(*self.index, Mode::Normal)
    }

    /// Runs `work` on the table as its owner, as index expressions are the owner's code.
    fn as_owner<T>(&self, work: impl FnOnce(&Table) -> T) -> T {
        let (mut user, mut security) = (pg_sys::InvalidOid, 0);
        // SAFETY: open relations. An error on the way restores user and settings with the transaction.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&raw mut user, &raw mut security);
            pg_sys::SetUserIdAndSecContext(
                self.heap.owner(),
                security | pg_sys::SECURITY_RESTRICTED_OPERATION.cast_signed(),
            );
            let level = pg_sys::NewGUCNestLevel();
            let info = pg_sys::BuildIndexInfo(self.index.as_raw());
            // Reads by a snapshot, as the build of an index that does not lock writers out.
            (*info).ii_Concurrent = true;
            (*info).ii_Unique = false;
            let result = work(&Table::new(*self.heap, *self.index, info));
            pg_sys::AtEOXact_GUC(false, level);
            pg_sys::SetUserIdAndSecContext(user, security);
            result
        }
    }
}

/// The function that access method ann was created with.
fn handler() -> Option<pg_sys::Oid> {
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

/// Size and shape of an index, from its first pages.
#[pg_extern(sql = false)]
fn ann_index_info(index: pg_sys::Oid) -> NewRecord {
    let opened = Opened::new(index, pg_sys::AccessShareLock);
    let pages = opened.pages();
    let ann = cache::open(&pages);
    let Ok(page_count) = pages.block_count();
    let (meta, geometry) = (ann.meta(), ann.space().geometry());
    let metric = match meta.metric {
        Metric::Cosine => "cosine",
        Metric::L2 => "l2",
        Metric::InnerProduct => "inner product",
    };
    let number = |n: usize| i32::try_from(n).expect("a page's field");
    NewRecord::new()
        .column(Some(NewText::from_utf8(metric)))
        .column(Some(number(geometry.dim())))
        .column(Some(number(geometry.code_dim())))
        .column(Some(number(geometry.slots())))
        .column(Some(i64::from(page_count)))
        .column(Some(i64::from(page_count) * i64::from(pg_sys::BLCKSZ)))
        .column(Some(i64::try_from(ann.entry_points().count()).expect("a count")))
        .column(Some(i64::from(meta.built_rows)))
        .column(Some(i32::from(FORMAT_VERSION)))
}

/// Verifies an index page by page and node by node, and, when asked, that every row of the table is in it.
#[pg_extern(sql = false)]
fn ann_index_check(index: pg_sys::Oid, heapallindexed: bool) -> NewRecord {
    // SAFETY: plain question.
    let in_recovery = unsafe { pg_sys::RecoveryInProgress() };
    // A standby cannot take a lock that keeps replay away.
    let lock = if in_recovery { pg_sys::AccessShareLock } else { pg_sys::ShareLock };
    require_owner(index);
    let opened = Opened::new(index, lock);
    cache::require_pages(&opened.pages());
    if heapallindexed && !opened.index.is_valid() {
        not_valid(*opened.index).raise();
    }
    let replayed = replayed();
    let name = opened.index.name();
    let (pages, table_blocks) = (opened.pages(), opened.heap.block_count(pg_sys::ForkNumber::MAIN_FORKNUM));
    let mut rows = IndexRows::new(table_blocks, memory_bytes());
    let report = check::check(&pages, |tid| rows.add(tid)).map_err(|error| damage(*opened.index, error));
    let report = report.or_raise();
    let mut problems = Problems::default();
    for part in rows.parts() {
        let read = |each: &mut dyn FnMut(HeapTid)| {
            check::rows(&pages, each).map_err(|error| damage(*opened.index, error)).or_raise();
        };
        let indexed = rows.sorted(&part, read);
        for tid in indexed.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]) {
            problems.tell(|| format!("row ({},{}) is there twice", tid.block, tid.offset));
        }
        if heapallindexed {
            let missing = |tid: HeapTid| {
                problems.tell(|| format!("row ({},{}) is missing", tid.block, tid.offset));
            };
            find_missing(&opened, &part, &indexed, missing);
        }
    }
    let count = report.problem_count + problems.count;
    let told = report.problems.iter().map(ToString::to_string).chain(problems.told);
    let told: Vec<String> = told.take(LISTED).collect();
    if count > 0 && replayed != self::replayed() {
        Report::new(
            Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("index \"{name}\" cannot be checked while changes are replayed"),
        )
        .detail(
            "A standby cannot keep changes away, and what is read before and after one may not fit together.",
        )
        .hint("Call pg_wal_replay_pause(), check, and call pg_wal_replay_resume(); or check on the primary.")
        .raise();
    }
    if count > 0 {
        Report::new(Code::ERRCODE_INDEX_CORRUPTED, format!("index \"{name}\" is damaged"))
            .detail(format!("{count} problems, such as: {}.", told.join("; ")))
            .hint("REINDEX the index.")
            .raise();
    }
    counts(&report)
}

/// How far a standby has replayed the log; 0 on a primary.
fn replayed() -> pg_sys::XLogRecPtr {
    // SAFETY: plain questions.
    unsafe {
        if pg_sys::RecoveryInProgress() { pg_sys::GetXLogReplayRecPtr(std::ptr::null_mut()) } else { 0 }
    }
}

fn counts(report: &CheckReport) -> NewRecord {
    let number = |n: u64| Some(i64::try_from(n).expect("a count"));
    NewRecord::new()
        .column(number(report.live))
        .column(number(report.dead))
        .column(number(report.free))
        .column(number(report.rows))
        .column(number(report.edges))
        .column(number(report.stale_edges))
        .column(number(report.unreachable))
}

/// Problems with rows: how many, and the first of them in words.
#[derive(Default)]
struct Problems {
    count: u64,
    told: Vec<String>,
}

impl Problems {
    fn tell(&mut self, words: impl FnOnce() -> String) {
        self.count += 1;
        if self.told.len() < LISTED {
            self.told.push(words());
        }
    }
}

/// Calls `each` with the rows in a part of the table that have a vector which the index would hold, and are not
/// among those that it has of this part.
fn find_missing(opened: &Opened, part: &Range<u32>, indexed: &[HeapTid], mut each: impl FnMut(HeapTid)) {
    let ann = cache::open(&opened.pages());
    opened.as_owner(|table| {
        table.scan_part(part, |vector, tid| {
            pgrx::check_for_interrupts!();
            if indexed.binary_search(&tid).is_err() && !matches!(ann.space().quantize(vector), Ok(None)) {
                each(tid);
            }
        });
    });
}

fn require_owner(index: pg_sys::Oid) {
    // SAFETY: looks into the catalogs.
    let is_owner = unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        let is_owner = pg_sys::pg_class_ownercheck(index, pg_sys::GetUserId());
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        let is_owner = pg_sys::object_ownercheck(pg_sys::RelationRelationId, index, pg_sys::GetUserId());
        is_owner
    };
    if !is_owner {
        Report::new(Code::ERRCODE_INSUFFICIENT_PRIVILEGE, "must be owner of the index to check it")
            .detail("The check locks the table against writers.")
            .hint("Have the owner check it, or a member of the owner's role.")
            .raise();
    }
}

/// Rows that a search for two neighbors of a row looks at; the others may all be copies of it.
const NEIGHBORS_TRIED: usize = 100;

/// A vector like those of the table, as far from a row as the row's neighbors are: the row, moved by the
/// difference of two of them. The row itself would be too easy a query, for the graph was built around it.
fn like(table: &Table, metric: Metric, row: &[f32]) -> Vec<f32> {
    let mut neighbors: Vec<Vec<f32>> = Vec::new();
    let mut tried = 0;
    table.search(row, |_, _, vector| {
        tried += 1;
        let differs = vector != row && neighbors.first().is_none_or(|first| first != vector);
        if differs && vector.len() == row.len() && exact(metric, row, vector).is_finite() {
            neighbors.push(vector.to_vec());
        }
        neighbors.len() < 2 && tried < NEIGHBORS_TRIED
    });
    let mut query = row.to_vec();
    if let [one, other] = neighbors.as_slice() {
        // The two lie in about orthogonal directions from the row, in many dimensions.
        for ((x, a), b) in query.iter_mut().zip(one).zip(other) {
            *x += (a - b) * std::f32::consts::FRAC_1_SQRT_2;
        }
    }
    query
}

/// Share of the true nearest neighbors that the index finds with the settings of the session, over queries
/// that are like rows of the table. NULL if no row of the table is in the index.
#[pg_extern(sql = false)]
fn ann_index_recall(index: pg_sys::Oid, k: i32, samples: i32) -> Option<f64> {
    let bounded = |value: i32, high: usize, what: &str| match usize::try_from(value) {
        Ok(value) if (1..=high).contains(&value) => value,
        _ => Report::new(Code::ERRCODE_INVALID_PARAMETER_VALUE, format!("{what} is out of range"))
            .detail(format!("{what} is {value}, allowed are 1 to {high}."))
            .hint("Leave the argument out for its default.")
            .raise(),
    };
    let (k, samples) = (bounded(k, 1000, "k"), bounded(samples, 10_000, "samples"));
    let opened = Opened::new(index, pg_sys::AccessShareLock);
    require_select(&opened);
    let metric = OpClass::of(*opened.index).metric;
    let ann = cache::open(&opened.pages());
    let queries: Vec<Vec<f32>> = opened.as_owner(|table| {
        let rows = table.sample(ann.space().geometry().dim(), samples);
        let indexed = rows.iter().filter(|row| matches!(ann.space().quantize(row), Ok(Some(_))));
        indexed.map(|row| like(table, metric, row)).collect()
    });
    let mut nearest: Vec<Nearest> = queries.iter().map(|_| Nearest::new(k)).collect();
    opened.as_owner(|table| {
        table.scan(|vector, _| {
            pgrx::check_for_interrupts!();
            for (query, nearest) in queries.iter().zip(&mut nearest) {
                if vector.len() == query.len() {
                    nearest.offer(exact(metric, query, vector));
                }
            }
        });
    });
    let (mut found, mut wanted) = (0, 0);
    opened.as_owner(|table| {
        for (query, nearest) in queries.iter().zip(&nearest) {
            wanted += nearest.distances.len();
            let mut given = Nearest::new(k);
            // As the executor does: fetch on while the bound says that a row may be nearer.
            table.search(query, |lower_bound, _, vector| {
                if given.worst().is_some_and(|worst| lower_bound > worst) {
                    return false;
                }
                given.offer(exact(metric, query, vector));
                true
            });
            let limit = nearest.distances.last().copied().unwrap_or(f64::NEG_INFINITY);
            found += given.distances.iter().filter(|&&distance| distance <= limit).count();
        }
    });
    #[allow(clippy::cast_precision_loss, reason = "a ratio of small counts")]
    (wanted > 0).then(|| found as f64 / wanted as f64)
}

/// The k smallest distances, ascending.
struct Nearest {
    k: usize,
    distances: Vec<f64>,
}

impl Nearest {
    fn new(k: usize) -> Self {
        Self { k, distances: Vec::with_capacity(k + 1) }
    }

    /// The largest of k; nothing yet with fewer.
    fn worst(&self) -> Option<f64> {
        (self.distances.len() == self.k).then(|| self.distances[self.k - 1])
    }

    fn offer(&mut self, distance: f64) {
        if self.worst().is_none_or(|worst| distance < worst) && !distance.is_nan() {
            let at = self.distances.partition_point(|&d| d <= distance);
            self.distances.insert(at, distance);
            self.distances.truncate(self.k);
        }
    }
}

/// The distance as the operator computes it.
fn exact(metric: Metric, a: &[f32], b: &[f32]) -> f64 {
    match metric {
        Metric::Cosine => distance::cosine(a, b),
        Metric::L2 => distance::l2(a, b),
        Metric::InnerProduct => -distance::inner_product(a, b),
    }
}

fn require_select(opened: &Opened) {
    let select = pg_sys::ACL_SELECT as pg_sys::AclMode;
    // SAFETY: looks into the catalogs.
    let result = unsafe { pg_sys::pg_class_aclcheck(opened.heap.oid(), pg_sys::GetUserId(), select) };
    if result != pg_sys::AclResult::ACLCHECK_OK {
        Report::new(
            Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("permission denied for table {}", opened.heap.name()),
        )
        .detail("The index is measured with vectors of the table.")
        .hint("Have the table's owner grant SELECT.")
        .raise();
    }
}

/// What scans cost in this session.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "the columns of the view")]
fn ann_scan_counters() -> TableIterator<
    'static,
    (
        name!(index, pg_sys::Oid),
        name!(scans, i64),
        name!(rows_fetched, i64),
        name!(pages_read, i64),
        name!(exact_distances, i64),
        name!(estimates, i64),
        name!(late_rows, i64),
        name!(stale_links, i64),
        name!(limited_scans, i64),
    ),
> {
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    TableIterator::new(stats::all().into_iter().map(move |(oid, s)| {
        (
            oid,
            number(s.scans),
            number(s.rows),
            number(s.walk.hops + s.walk.stale_links + s.walk.swept_pages),
            number(s.walk.hops),
            number(s.walk.estimates),
            number(s.walk.late),
            number(s.walk.stale_links),
            number(s.limited),
        )
    }))
}
