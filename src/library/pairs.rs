//! `ann_pairs` and `ann_groups`: all pairs within a distance, from an index, and groups of them.
//!
//! The index knows which nodes may have rows within the distance; the table, by the statement's snapshot, has the rows and the
//! last word on their distance. So no pair is wrong, and few are missing.

use super::duplicates::{GROUPING_BYTES, parse_linkage, require_distance, shown};
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
/// What to do about too many pairs.
const FEWER: &str = "give a smaller max_distance";
/// What to do where equal vectors alone make too many: each pair of them is within every distance.
const FEWER_COPIES: &str = "use ann_groups, which takes equal vectors for one";
/// Nodes whose rows are kept for the next pairs.
const KEPT_NODES: usize = 4096;

/// Two rows within the distance, the first one first.
#[derive(Clone, Copy)]
struct Found {
    a: HeapTid,
    b: HeapTid,
    distance: f64,
}

impl Found {
    /// Nothing of a row and itself.
    fn of(one: HeapTid, other: HeapTid, distance: f64) -> Option<Self> {
        (one != other).then(|| Self { a: one.min(other), b: one.max(other), distance })
    }
}

#[pg_extern(sql = false)]
fn ann_pairs(
    index: pg_sys::Oid,
    max_distance: f64,
) -> TableIterator<
    'static,
    (name!(a, pg_sys::ItemPointerData), name!(b, pg_sys::ItemPointerData), name!(distance, f64)),
> {
    let mut found = Vec::new();
    find(index, max_distance, Counted::Rows, &mut |event| match event {
        Event::Copies(same) => {
            let distance = same.distance();
            for (at, &one) in same.tids.iter().enumerate() {
                check();
                if distance <= max_distance {
                    found.extend(
                        same.tids[at + 1..].iter().filter_map(|&other| Found::of(one, other, distance)),
                    );
                }
            }
        }
        Event::Near(one, other, distance) => {
            for &a in &one.tids {
                found.extend(other.tids.iter().filter_map(|&b| Found::of(a, b, distance)));
            }
        }
    });
    fault::point("return pairs");
    let found = distinct(found);
    TableIterator::new(found.into_iter().map(|pair| (item(pair.a), item(pair.b), pair.distance)))
}

#[pg_extern(sql = false)]
fn ann_groups(
    index: pg_sys::Oid,
    max_distance: f64,
    linkage: Text<'_>,
) -> TableIterator<'static, (name!(tid, pg_sys::ItemPointerData), name!(number, i32))> {
    let linkage = parse_linkage(linkage.as_str());
    // Equal vectors are one member, by their first row, until the groups are made: a picture may have thousands of copies.
    let (mut found, mut copies) = (Vec::new(), Vec::new());
    find(index, max_distance, Counted::Vectors, &mut |event| match event {
        Event::Copies(same) => copies.extend(same.tids[1..].iter().map(|&copy| (same.tids[0], copy))),
        Event::Near(one, other, distance) => found.extend(Found::of(one.tids[0], other.tids[0], distance)),
    });
    let found = distinct(found);
    let firsts = copies.iter().map(|copy| copy.0);
    let mut rows: Vec<HeapTid> = found.iter().flat_map(|pair| [pair.a, pair.b]).chain(firsts).collect();
    rows.sort_unstable();
    rows.dedup();
    let place = |tid: HeapTid| rows.binary_search(&tid).expect("a row of a pair");
    let number = |tid: HeapTid| u32::try_from(place(tid)).expect("below 2^32");
    let mut pairs: Vec<Pair> = found
        .iter()
        .map(|pair| Pair { a: number(pair.a), b: number(pair.b), distance: pair.distance })
        .collect();
    drop(found);
    let mut labels = linkage::groups(rows.len(), &mut pairs, linkage, &mut check);
    let mut count = labels.iter().flatten().max().map_or(0, |&most| most + 1);
    for &(first, _) in &copies {
        labels[place(first)].get_or_insert_with(|| {
            count += 1;
            count - 1
        });
    }
    let members = rows.iter().zip(&labels).filter_map(|(&row, &label)| Some((row, label?)));
    let of_copies = copies.iter().filter_map(|&(first, copy)| Some((copy, labels[place(first)]?)));
    let mut grouped: Vec<(HeapTid, u32)> = members.chain(of_copies).collect();
    grouped.sort_unstable();
    grouped.dedup_by_key(|member| member.0);
    // Groups are numbered from 1 in the order of their first rows.
    let (mut numbers, mut next) = (vec![0; count as usize], 0);
    let numbered = grouped.into_iter().map(|(row, label)| {
        let number = &mut numbers[label as usize];
        if *number == 0 {
            next += 1;
            *number = next;
        }
        (item(row), *number)
    });
    TableIterator::new(numbered.collect::<Vec<_>>())
}

pub fn item(tid: HeapTid) -> pg_sys::ItemPointerData {
    let mut item = pg_sys::ItemPointerData::default();
    pgrx::itemptr::item_pointer_set_all(&mut item, tid.block, tid.offset);
    item
}

/// What the memory limit counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Counted {
    /// Pairs of rows.
    Rows,
    /// Pairs of different vectors, and the rows that have the same; these are grouped afterwards.
    Vectors,
}

/// What is found in the table.
enum Event<'a> {
    /// Two rows or more with the same vector.
    Copies(&'a Same),
    /// Rows of two vectors within the distance.
    Near(&'a Same, &'a Same, f64),
}

/// Finds all rows within a distance of each other, and reports them.
fn find(oid: pg_sys::Oid, max_distance: f64, counted: Counted, report: &mut dyn FnMut(Event<'_>)) {
    require_distance(max_distance);
    let opened = index::open(oid);
    let metric = index::metric(&opened);
    let Some(nodes) = index::load(&opened) else { return };
    let left = index::left_bytes(&nodes, Nodes::node_bytes(&cache::open(&opened.pages())));
    let bytes = PAIR_BYTES + if counted == Counted::Vectors { GROUPING_BYTES } else { 0 };
    let most = left / bytes;
    let searching = Searching::new(nodes.len());
    let pairs = nodes.pairs(index::as_l2(metric, max_distance), most, &searching, &searching.done);
    let candidates = match index::not_cancelled(pairs) {
        Pairs::All(pairs) => pairs,
        Pairs::TooMany(count) => too_many(count, max_distance, bytes, left, FEWER),
    };
    let count = |node: u32| nodes.rows(node).len() as u64;
    let all = || (0..nodes.len()).map(|node| u32::try_from(node).expect("numbered by 32 bits"));
    let of_rows = || -> (u64, u64) {
        (
            candidates.iter().map(|&(a, b)| count(a) * count(b)).sum(),
            all().map(|node| count(node) * (count(node) - 1) / 2).sum(),
        )
    };
    let (across, inside): (u64, u64) = match counted {
        Counted::Rows => of_rows(),
        Counted::Vectors => (candidates.len() as u64, all().map(|node| count(node) - 1).sum()),
    };
    if across + inside > most as u64 {
        let has_many_copies = counted == Counted::Rows && inside > most as u64;
        too_many(
            across + inside,
            max_distance,
            bytes,
            left,
            if has_many_copies { FEWER_COPIES } else { FEWER },
        );
    }
    // A node of equal directions may hold many different vectors, and then has more pairs than were counted.
    let mut near = 0;
    verify(&opened, metric, &nodes, &candidates, max_distance, &mut |event| {
        if counted == Counted::Vectors && matches!(event, Event::Near(..)) {
            near += 1;
            if near > most as u64 {
                let (across, inside) = of_rows();
                too_many(across + inside, max_distance, bytes, left, FEWER);
            }
        }
        report(event);
    });
}

fn too_many(count: u64, max_distance: f64, bytes: usize, left: usize, remedy: &str) -> ! {
    let bytes = usize::try_from(count).unwrap_or(usize::MAX).saturating_mul(bytes);
    let what = format!("About {count} pairs of rows within {}", shown(max_distance));
    memory::exceeded(bytes, left, &what, remedy).raise()
}

/// Rows with the same vector, ascending.
struct Same {
    vector: Vec<f32>,
    tids: Vec<HeapTid>,
    metric: Metric,
}

impl Same {
    /// The distance of the vector to itself, as an operator computes it.
    fn distance(&self) -> f64 {
        exact(self.metric, &self.vector, &self.vector)
    }
}

/// Rows of a node that the snapshot sees, by their vectors: nearly always one.
fn by_vector(rows: impl Iterator<Item = (HeapTid, Vec<f32>)>, metric: Metric) -> Vec<Same> {
    let mut all: Vec<Same> = Vec::new();
    for (tid, vector) in rows {
        check();
        match all.iter_mut().find(|same| same.vector == vector) {
            Some(same) => same.tids.push(tid),
            None => all.push(Same { vector, tids: vec![tid], metric }),
        }
    }
    for same in &mut all {
        same.tids.sort_unstable();
        same.tids.dedup();
    }
    all
}

/// Each pair once, ascending by its rows. A place of the table that holds another row by now may stand twice in the index.
fn distinct(mut found: Vec<Found>) -> Vec<Found> {
    found.sort_unstable_by_key(|pair| (pair.a, pair.b));
    found.dedup_by_key(|pair| (pair.a, pair.b));
    found
}

/// Reports what of the candidates is within the distance, by the table's rows.
fn verify(
    opened: &Opened,
    metric: Metric,
    nodes: &Nodes,
    candidates: &[(u32, u32)],
    max_distance: f64,
    report: &mut dyn FnMut(Event<'_>),
) {
    let mut kept: LruCache<u32, Rc<Vec<Same>>> = LruCache::new(NonZeroUsize::new(KEPT_NODES).expect("not 0"));
    let mut steps = Steps::new("compared", candidates.len());
    let offer = |one: &Same, other: &Same, report: &mut dyn FnMut(Event<'_>)| {
        if one.vector.len() == other.vector.len() {
            let distance = exact(metric, &one.vector, &other.vector);
            if distance <= max_distance {
                report(Event::Near(one, other, distance));
            }
        }
    };
    opened.as_owner(|table| {
        fault::point("fetch rows of pairs");
        table.with_rows(|fetch| {
            let mut rows_of = |node: u32| -> Rc<Vec<Same>> {
                if let Some(rows) = kept.get(&node) {
                    return Rc::clone(rows);
                }
                let rows = Rc::new(by_vector(nodes.rows(node).iter().filter_map(|&tid| fetch(tid)), metric));
                kept.put(node, Rc::clone(&rows));
                rows
            };
            for node in (0..nodes.len()).map(|node| u32::try_from(node).expect("numbered by 32 bits")) {
                if nodes.has_copies(node) {
                    let rows = rows_of(node);
                    for (at, one) in rows.iter().enumerate() {
                        check();
                        if one.tids.len() > 1 {
                            report(Event::Copies(one));
                        }
                        rows[at + 1..].iter().for_each(|other| offer(one, other, report));
                    }
                }
            }
            for &(a, b) in candidates {
                steps.step();
                let (of_a, of_b) = (rows_of(a), rows_of(b));
                for one in of_a.iter() {
                    of_b.iter().for_each(|other| offer(one, other, report));
                }
            }
        });
    });
}
