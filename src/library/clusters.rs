//! `cluster` and `ann_clusters`: clusters of the rows of a partition, and of an index.

use super::index::{self, Searching, Steps};
use super::memory;
use super::partition::{Keep, Partition, check, constant};
use crate::am::cache;
use crate::am::inspect::Opened;
use crate::error::{Code, Report};
use crate::fault;
use crate::server::window::Window;
use imgvec_ann::graph::near::{NO_NEIGHBOR, Nearest, Nodes};
use imgvec_ann::layout::HeapTid;
use imgvec_library::hdbscan::{self, Clusters};
use imgvec_library::linkage::Pair;
use pgrx::iter::TableIterator;
use pgrx::prelude::*;

/// The smallest clusters that can be asked for.
const SMALLEST: i32 = 2;

#[pg_extern(sql = false)]
fn cluster(call: pg_sys::FunctionCallInfo) -> Option<i32> {
    // SAFETY: the call's own.
    let window = unsafe { Window::of_call(call) };
    window.answer(|| {
        let min_size = require_size(constant(window, 1, "min_size"));
        let partition = Partition::read(window, Keep::Directions, hdbscan::EXACT_ROW_BYTES);
        let vectors = &partition.vectors;
        let found = hdbscan::exact(vectors.len(), min_size, |a, b| vectors.distance(a, b), &mut check);
        partition.by_row(|place| found.labels[place].map(from_one))
    })
}

/// Raises an error unless clusters can have so few rows.
pub fn require_size(min_size: i32) -> usize {
    if min_size < SMALLEST {
        Report::new(Code::ERRCODE_INVALID_PARAMETER_VALUE, "min_size is out of range")
            .detail(format!("It is {min_size}; a cluster has at least {SMALLEST} rows."))
            .hint("Give the smallest size of a cluster, such as 5.")
            .raise();
    }
    usize::try_from(min_size).expect("not negative")
}

/// Numbers as SQL counts.
pub fn from_one(number: u32) -> i32 {
    i32::try_from(number).expect("rows are counted by 31 bits") + 1
}

/// Neighbors of each vector that its clusters are made of, at least.
const NEIGHBORS: usize = 15;
/// Bytes that clustering takes for a row, and for each of its neighbors.
const ROW_BYTES: usize = 200;
const NEIGHBOR_BYTES: usize = 24;

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "the columns of the table")]
fn ann_clusters(
    index: pg_sys::Oid,
    min_size: i32,
) -> TableIterator<
    'static,
    (name!(tid, pg_sys::ItemPointerData), name!(cluster, Option<i32>), name!(strength, f32)),
> {
    let min_size = require_size(min_size);
    let opened = index::open(index);
    let _ = index::metric(&opened);
    let (rows, found) = match index::load(&opened) {
        Some(nodes) => of_nodes(&opened, &nodes, min_size),
        None => (Vec::new(), Clusters { labels: Vec::new(), strengths: Vec::new() }),
    };
    let answers = rows.into_iter().zip(found.labels).zip(found.strengths);
    let answers =
        answers.map(|((row, label), strength)| (super::pairs::item(row), label.map(from_one), strength));
    TableIterator::new(answers.collect::<Vec<_>>())
}

/// The rows of an index that the statement's snapshot sees, ascending, and their clusters.
fn of_nodes(opened: &Opened, nodes: &Nodes, min_size: usize) -> (Vec<HeapTid>, Clusters) {
    let k = NEIGHBORS.max(min_size + min_size / 2).min(nodes.len().saturating_sub(1)).max(1);
    let node_bytes = Nodes::node_bytes(&cache::open(&opened.pages()));
    let wanted = nodes.len() * (node_bytes + k * NEIGHBOR_BYTES) + nodes.row_count() * (ROW_BYTES + 16);
    memory::require(wanted, &format!("Clusters of {} rows", nodes.row_count()), "partition the table");
    let searching = Searching::new(nodes.len());
    let nearest = index::not_cancelled(nodes.nearest(k, &searching, &searching.done));
    let mut seen: Vec<(HeapTid, u32)> = Vec::with_capacity(nodes.row_count());
    let mut steps = Steps::new("examined rows of", nodes.len());
    opened.as_owner(|table| {
        fault::point("fetch rows of clusters");
        table.with_rows(|fetch| {
            for node in 0..number(nodes.len()) {
                steps.step();
                for &tid in nodes.rows(node) {
                    seen.extend(fetch(tid).map(|(tid, _)| (tid, node)));
                }
            }
        });
    });
    fault::point("find clusters");
    seen.sort_unstable();
    seen.dedup_by_key(|row| row.0);
    let found = cluster_rows(nodes, &nearest, &seen, min_size);
    (seen.into_iter().map(|(tid, _)| tid).collect(), found)
}

fn number(at: usize) -> u32 {
    u32::try_from(at).expect("numbered by 32 bits")
}

/// Clusters of rows, each with its node.
fn cluster_rows(nodes: &Nodes, nearest: &Nearest, rows: &[(HeapTid, u32)], min_size: usize) -> Clusters {
    // The first row of a node stands for it, and the others lie at no distance from that.
    let (mut first, mut count) = (vec![u32::MAX; nodes.len()], vec![0u32; nodes.len()]);
    let mut edges: Vec<Pair> = Vec::new();
    for (row, &(_, node)) in rows.iter().enumerate() {
        let (row, node) = (number(row), node as usize);
        count[node] += 1;
        if first[node] == u32::MAX {
            first[node] = row;
        } else {
            edges.push(Pair { a: first[node], b: row, distance: 0.0 });
        }
    }
    let neighbors = |node: usize| {
        let list = &nearest.lists[node * nearest.k..(node + 1) * nearest.k];
        list.iter()
            .filter(|&&neighbor| neighbor != NO_NEIGHBOR)
            .map(|&(other, squared)| (other as usize, f64::from(squared).sqrt()))
    };
    let core_of = |node: usize| {
        let mut there = count[node] as usize;
        if there >= min_size {
            return 0.0;
        }
        for (other, distance) in neighbors(node) {
            there += count[other] as usize;
            if there >= min_size {
                return distance;
            }
        }
        f64::INFINITY
    };
    let cores: Vec<f64> = (0..nodes.len()).map(core_of).collect();
    for node in 0..nodes.len() {
        check();
        if count[node] > 0 {
            edges.extend(
                neighbors(node).filter(|&(other, _)| count[other] > 0).map(|(other, distance)| Pair {
                    a: first[node],
                    b: first[other],
                    distance,
                }),
            );
        }
    }
    let core: Vec<f64> = rows.iter().map(|&(_, node)| cores[node as usize]).collect();
    let (count, first) = (&count, &first);
    let links =
        (0..number(nodes.len())).filter(move |&node| count[node as usize] > 0).flat_map(move |node| {
            let others = nodes.links(node).iter().filter(move |&&other| count[other as usize] > 0);
            others.map(move |&other| (first[node as usize], first[other as usize]))
        });
    let distance = |a: u32, b: u32| {
        let squared = nodes.distance_squared(rows[a as usize].1, rows[b as usize].1);
        f64::from(squared).sqrt()
    };
    hdbscan::of_graph(&core, min_size, edges, links, distance, &mut check)
}
