//! `ann_pairs` and `ann_groups`: all pairs within a distance, from an index, and groups of them.
//!
//! The index knows which nodes may have rows within the distance; the table, by the statement's snapshot, has the rows and the
//! last word on their distance. So no pair is wrong, and few are missing.

use super::duplicates::{GROUPING_BYTES, parse_linkage, require_distance};
use super::index::{self, Searching, Steps};
use super::memory;
use super::partition::check;
use crate::am::cache;
use crate::am::inspect::{Opened, exact};
use crate::fault;
use crate::types::datum::Text;
use imgvec_ann::Metric;
use imgvec_ann::graph::near::{Nodes, Pairs};
use imgvec_ann::layout::HeapTid;
use imgvec_library::linkage::{self, Pair};
use lru::LruCache;
use pgrx::iter::TableIterator;
use pgrx::prelude::*;
use std::num::NonZeroUsize;
use std::rc::Rc;

/// Bytes that a pair takes while it is looked for: several times as a candidate, as a pair, and as what is returned.
const PAIR_BYTES: usize = 128;
/// Rows whose vectors are kept for the next pairs.
const KEPT_ROWS: usize = 4096;

/// Two rows within the distance.
#[derive(Clone, Copy)]
struct Found {
    a: HeapTid,
    b: HeapTid,
    distance: f64,
}

#[pg_extern(sql = false)]
fn ann_pairs(
    index: pg_sys::Oid,
    max_distance: f64,
) -> TableIterator<
    'static,
    (name!(a, pg_sys::ItemPointerData), name!(b, pg_sys::ItemPointerData), name!(distance, f64)),
> {
    let found = find(index, max_distance, 0);
    TableIterator::new(found.into_iter().map(|pair| (item(pair.a), item(pair.b), pair.distance)))
}

#[pg_extern(sql = false)]
fn ann_groups(
    index: pg_sys::Oid,
    max_distance: f64,
    linkage: Text<'_>,
) -> TableIterator<'static, (name!(tid, pg_sys::ItemPointerData), name!(number, i32))> {
    let linkage = parse_linkage(linkage.as_str());
    let found = find(index, max_distance, GROUPING_BYTES);
    let mut rows: Vec<HeapTid> = found.iter().flat_map(|pair| [pair.a, pair.b]).collect();
    rows.sort_unstable();
    rows.dedup();
    let number =
        |tid: &HeapTid| u32::try_from(rows.binary_search(tid).expect("a row of a pair")).expect("below 2^32");
    let mut pairs: Vec<Pair> = found
        .iter()
        .map(|pair| Pair { a: number(&pair.a), b: number(&pair.b), distance: pair.distance })
        .collect();
    drop(found);
    let groups = linkage::groups(rows.len(), &mut pairs, linkage, &mut check);
    let grouped = rows.into_iter().zip(groups).filter_map(|(row, group)| {
        Some((item(row), i32::try_from(group?).expect("below the number of rows") + 1))
    });
    TableIterator::new(grouped.collect::<Vec<_>>())
}

pub fn item(tid: HeapTid) -> pg_sys::ItemPointerData {
    let mut item = pg_sys::ItemPointerData::default();
    pgrx::itemptr::item_pointer_set_all(&mut item, tid.block, tid.offset);
    item
}

/// All pairs within a distance, ascending by their rows.
fn find(oid: pg_sys::Oid, max_distance: f64, grouping_bytes: usize) -> Vec<Found> {
    require_distance(max_distance);
    let opened = index::open(oid);
    let metric = index::metric(&opened);
    let Some(nodes) = index::load(&opened) else { return Vec::new() };
    let left = index::left_bytes(&nodes, Nodes::node_bytes(&cache::open(&opened.pages())));
    let most = left / (PAIR_BYTES + grouping_bytes);
    let searching = Searching::new(nodes.len());
    let pairs = nodes.pairs(index::as_l2(metric, max_distance), most, &searching, &searching.done);
    let candidates = match index::not_cancelled(pairs) {
        Pairs::All(pairs) => pairs,
        Pairs::TooMany(count) => too_many(count, max_distance, grouping_bytes, left),
    };
    let count = |node: u32| nodes.rows(node).len() as u64;
    let across: u64 = candidates.iter().map(|&(a, b)| count(a) * count(b)).sum();
    let copies = (0..nodes.len()).map(|node| u32::try_from(node).expect("numbered by 32 bits"));
    let inside: u64 = copies.map(|node| count(node) * (count(node) - 1) / 2).sum();
    if across + inside > most as u64 {
        too_many(across + inside, max_distance, grouping_bytes, left);
    }
    verified(&opened, metric, &nodes, &candidates, max_distance)
}

fn too_many(count: u64, max_distance: f64, grouping_bytes: usize, left: usize) -> ! {
    let bytes = usize::try_from(count).unwrap_or(usize::MAX).saturating_mul(PAIR_BYTES + grouping_bytes);
    let what = format!("About {count} pairs of rows within {max_distance}");
    memory::exceeded(bytes, left, &what, "give a smaller max_distance").raise()
}

/// Rows of a node that the snapshot sees, with their vectors.
type Rows = Rc<Vec<(HeapTid, Vec<f32>)>>;

/// The rows of candidates that are within the distance.
fn verified(
    opened: &Opened,
    metric: Metric,
    nodes: &Nodes,
    candidates: &[(u32, u32)],
    max_distance: f64,
) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    let mut kept: LruCache<u32, Rows> = LruCache::new(NonZeroUsize::new(KEPT_ROWS).expect("not 0"));
    let mut steps = Steps::new("compared", candidates.len());
    let mut offer = |one: &(HeapTid, Vec<f32>), other: &(HeapTid, Vec<f32>)| {
        if one.1.len() == other.1.len() && one.0 != other.0 {
            let distance = exact(metric, &one.1, &other.1);
            if distance <= max_distance {
                found.push(Found { a: one.0.min(other.0), b: one.0.max(other.0), distance });
            }
        }
    };
    opened.as_owner(|table| {
        fault::point("fetch rows of pairs");
        table.with_rows(|fetch| {
            let mut rows_of = |node: u32| -> Rows {
                if let Some(rows) = kept.get(&node) {
                    return Rc::clone(rows);
                }
                let rows: Rows = Rc::new(nodes.rows(node).iter().filter_map(|&tid| fetch(tid)).collect());
                // One node's rows may be many.
                if rows.len() < KEPT_ROWS / 64 {
                    kept.put(node, Rc::clone(&rows));
                }
                rows
            };
            for node in (0..nodes.len()).map(|node| u32::try_from(node).expect("numbered by 32 bits")) {
                if nodes.has_copies(node) {
                    let rows = rows_of(node);
                    for (at, one) in rows.iter().enumerate() {
                        check();
                        rows[at + 1..].iter().for_each(|other| offer(one, other));
                    }
                }
            }
            for &(a, b) in candidates {
                steps.step();
                let (of_a, of_b) = (rows_of(a), rows_of(b));
                for one in of_a.iter() {
                    of_b.iter().for_each(|other| offer(one, other));
                }
            }
        });
    });
    fault::point("return pairs");
    found.sort_unstable_by_key(|pair| (pair.a, pair.b));
    // A place of the table that holds another row by now may stand twice in the index.
    found.dedup_by_key(|pair| (pair.a, pair.b));
    found
}
