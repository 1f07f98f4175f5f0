//! `ann_index_recall`: how well an index finds.

use super::Opened;
use crate::am::insert::seed;
use crate::am::keys;
use crate::am::opclass::OpClass;
use crate::am::table::Table;
use crate::am::{cache, waiting};
use crate::error::index::{damage, vector as bad_vector};
use crate::error::{Code, OrRaise, Report};
use crate::server::{catalog, security};
use crate::storage::Pages;
use crate::types::Vector;
use imgvec_ann::graph::calibrate::{self, Measured};
use imgvec_ann::layout::meta::MeasuredRecall;
use imgvec_ann::random::SplitMix64;
use imgvec_ann::space::Query;
use imgvec_ann::{AccessError, Index, Metric};
use imgvec_vector::distance;
use pgrx::prelude::*;
use std::convert::Infallible;
use std::time::{SystemTime, UNIX_EPOCH};

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

/// Most neighbors, and most queries.
const MAX_K: usize = 1000;
const MAX_QUERIES: usize = 10_000;

fn bounded(value: i32, high: usize, what: &str) -> usize {
    match usize::try_from(value) {
        Ok(value) if (1..=high).contains(&value) => value,
        _ => Report::new(Code::ERRCODE_INVALID_PARAMETER_VALUE, format!("{what} is out of range"))
            .detail(format!("{what} is {value}, and must be between 1 and {high}."))
            .hint("Leave the argument out for its default.")
            .raise(),
    }
}

/// As [`ann_index_recall`], over queries of the caller's own, such as embedded texts. NULL elements are left out, and so are queries that have
/// no distance from any row.
#[pg_extern(sql = false)]
fn ann_index_recall_of_queries(index: pg_sys::Oid, queries: pgrx::AnyArray, k: i32) -> Option<f64> {
    let (k, queries) = (bounded(k, MAX_K, "k"), vectors(&queries));
    let opened = Opened::new(index, pg_sys::AccessShareLock, |subject| require_rows(subject.table));
    let queries = indexable(&opened, queries)?;
    kept(&opened, k, measured(&opened, &queries, k))
}

/// As [`ann_index_recall_of_queries`]. If `recalibrate` is true, it first measures how far searches must look ahead to find the nearest
/// rows of these queries, and keeps that in the index: searches whose target of recall is not overruled go by it from then on.
#[pg_extern(sql = false)]
fn ann_index_recalibrate_for(
    index: pg_sys::Oid,
    queries: pgrx::AnyArray,
    recalibrate: bool,
    k: i32,
) -> Option<f64> {
    let (k, queries) = (bounded(k, MAX_K, "k"), vectors(&queries));
    let opened = open(index, recalibrate);
    let queries = indexable(&opened, queries)?;
    if recalibrate {
        calibrate_by(&opened, |pages, ann| {
            let queries = queries.iter().map(|query| Query::new(ann.space(), query));
            // Those that the index could not hold were refused before.
            calibrate::calibrate_for(pages, ann, queries.filter_map(Result::ok).collect())
        });
    }
    kept(&opened, k, measured(&opened, &queries, k))
}

/// Share of the true nearest neighbors that the index finds with the settings of the session, over queries
/// that are like rows of the table. NULL if no row of the table is in the index.
#[pg_extern(sql = false)]
fn ann_index_recall(index: pg_sys::Oid, k: i32, samples: i32) -> Option<f64> {
    let (k, samples) = (bounded(k, MAX_K, "k"), bounded(samples, MAX_QUERIES, "samples"));
    let opened = Opened::new(index, pg_sys::AccessShareLock, |subject| require_rows(subject.table));
    kept(&opened, k, measured_like_rows(&opened, k, samples))
}

/// As [`ann_index_recall`]. If `recalibrate` is true, it first measures again what a build measures at its end.
#[pg_extern(sql = false)]
fn ann_index_recalibrate(index: pg_sys::Oid, recalibrate: bool, k: i32, samples: i32) -> Option<f64> {
    let (k, samples) = (bounded(k, MAX_K, "k"), bounded(samples, MAX_QUERIES, "samples"));
    let opened = open(index, recalibrate);
    if recalibrate && !waiting::is_waiting(*opened.index) {
        calibrate_by(&opened, |pages, ann| calibrate::calibrate(pages, ann, &mut SplitMix64::new(seed())));
    }
    kept(&opened, k, measured_like_rows(&opened, k, samples))
}

/// Opens an index to measure it; as its owner, if what is measured should be kept.
fn open(index: pg_sys::Oid, recalibrate: bool) -> Opened {
    if recalibrate {
        // SAFETY: raises an error on a standby and in a read-only transaction.
        unsafe {
            pg_sys::PreventCommandDuringRecovery(c"ann_index_recall with recalibrate".as_ptr());
            pg_sys::PreventCommandIfReadOnly(c"ann_index_recall with recalibrate".as_ptr());
        }
    }
    let lock = if recalibrate { pg_sys::RowExclusiveLock } else { pg_sys::AccessShareLock };
    Opened::new(index, lock, |subject| {
        require_rows(subject.table);
        if recalibrate && !security::owns(subject.index) {
            Report::new(Code::ERRCODE_INSUFFICIENT_PRIVILEGE, "must be owner of the index to recalibrate it")
                .detail("The result is stored in the index, and all its searches use it.")
                .hint("Have the owner do it, or measure without recalibrate.")
                .raise();
        }
    })
}

/// Measures how far searches must look ahead, and keeps it.
fn calibrate_by<'a>(
    opened: &'a Opened,
    measure: impl FnOnce(&Pages<'a>, &Index) -> Result<Measured, AccessError<Infallible>>,
) {
    let pages = opened.pages();
    let ann = cache::open(&pages);
    measure(&pages, &ann)
        .and_then(|measured| calibrate::keep(&pages, &measured))
        .map_err(|error| damage(*opened.index, error))
        .or_raise();
}

/// Keeps what was measured in the index, for the view `ann_indexes`, if the user owns the index and this transaction may write. Somebody
/// else's queries are not what the owner would judge by.
fn kept(opened: &Opened, k: usize, recall: Option<f64>) -> Option<f64> {
    // SAFETY: plain questions about the session.
    let may_write =
        unsafe { !pg_sys::RecoveryInProgress() && !pg_sys::XactReadOnly && !pg_sys::IsInParallelMode() };
    if let Some(recall) = recall
        && may_write
        && security::owns(opened.index.oid())
    {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let at = u32::try_from(now).unwrap_or(u32::MAX);
        let measured = MeasuredRecall::new(recall, u16::try_from(k).expect("at most MAX_K"), at);
        calibrate::keep_recall(&opened.pages(), measured)
            .map_err(|error| damage(*opened.index, error))
            .or_raise();
    }
    recall
}

fn vectors(array: &pgrx::AnyArray) -> Vec<Vec<f32>> {
    // SAFETY: the functions are declared with an array of imgvec.
    let queries: Vec<Vec<f32>> = unsafe {
        let (_, elements) = keys::elements(array.datum());
        elements
            .into_iter()
            .filter_map(|query| Vector::<f32>::from_datum(query, false))
            .map(|v| v.elements().to_vec())
            .collect()
    };
    if queries.len() > MAX_QUERIES {
        Report::new(Code::ERRCODE_PROGRAM_LIMIT_EXCEEDED, "too many queries")
            .detail(format!("There are {}, and the limit is {MAX_QUERIES}.", queries.len()))
            .hint("A few hundred queries measure the recall to within .01.")
            .raise();
    }
    queries
}

/// The queries that have a distance from rows; raises an error if the index cannot be asked for one. `None` if the index
/// has no row.
fn indexable(opened: &Opened, queries: Vec<Vec<f32>>) -> Option<Vec<Vec<f32>>> {
    if waiting::is_waiting(*opened.index) {
        return None;
    }
    let ann = cache::open(&opened.pages());
    let indexed = |query: &Vec<f32>| {
        let quantized =
            ann.space().quantize(query).map_err(|error| bad_vector(*opened.index, error)).or_raise();
        quantized.is_some()
    };
    Some(queries.into_iter().filter(indexed).collect())
}

fn measured_like_rows(opened: &Opened, k: usize, samples: usize) -> Option<f64> {
    if waiting::is_waiting(*opened.index) {
        return None;
    }
    let metric = OpClass::of(*opened.index).metric;
    let ann = cache::open(&opened.pages());
    let queries: Vec<Vec<f32>> = opened.as_owner(|table| {
        let (rows, _) = table.sample(ann.space().geometry().dim(), samples);
        let indexed = rows.iter().filter(|row| matches!(ann.space().quantize(row), Ok(Some(_))));
        indexed.map(|row| like(table, metric, row)).collect()
    });
    measured(opened, &queries, k)
}

/// Share of the k nearest rows of each query that searches find; `None` without queries or rows.
fn measured(opened: &Opened, queries: &[Vec<f32>], k: usize) -> Option<f64> {
    let metric = OpClass::of(*opened.index).metric;
    let mut nearest: Vec<Nearest> = queries.iter().map(|_| Nearest::new(k)).collect();
    opened.as_owner(|table| {
        table.scan(|row| {
            let vector = row.vector;
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
pub fn exact(metric: Metric, a: &[f32], b: &[f32]) -> f64 {
    match metric {
        Metric::Cosine => distance::cosine(a, b),
        Metric::L2 => distance::l2(a, b),
        Metric::InnerProduct => -distance::inner_product(a, b),
    }
}

/// Raises an error unless the user may read every row of a table.
fn require_rows(table: pg_sys::Oid) {
    if !security::may_select(table) {
        Report::new(
            Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("permission denied for table {}", catalog::name_of(table)),
        )
        .detail("The index is measured with vectors of the table.")
        .hint("Have the table's owner grant SELECT.")
        .raise();
    }
    if security::is_bound_by_policies(table) {
        Report::new(
            Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!(
                "recall cannot be measured under row-level security of table \"{}\"",
                catalog::name_of(table)
            ),
        )
        .detail("The measurement uses all rows, including those that a policy hides.")
        .hint("Use a role with BYPASSRLS, or the table's owner without FORCE ROW LEVEL SECURITY.")
        .raise();
    }
}
