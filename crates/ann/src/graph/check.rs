//! Verifying a whole index: every page decodes, links make sense, every live node can be reached.
//!
//! An index may be larger than memory: what is remembered of a node is five bits, and of its links and rows nothing.

use super::reach::{Reach, Seen, nodes_of};
use super::rows::Rows;
use crate::bits::Bits;
use crate::index::{AccessError, Index};
use crate::layout::node::State;
use crate::layout::{BlockNumber, Geometry, HeapTid, NodeId};
use crate::store::PageStore;

/// Problems that a report has word for word; all are counted.
const TOLD: usize = 100;

/// What a verification found. `problems` is empty in a sound index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Nodes with rows.
    pub live: u64,
    /// Nodes without rows, waiting for vacuum.
    pub dead: u64,
    /// Slots without nodes.
    pub free: u64,
    /// Edges of live nodes.
    pub edges: u64,
    /// Edges to free slots; harmless leftovers of concurrent work.
    pub stale_edges: u64,
    /// Live nodes that no path from the entries leads to; found by the sweep only.
    pub unreachable: u64,
    /// Rows.
    pub rows: u64,
    /// The first broken rules.
    pub problems: Vec<Problem>,
    /// How many there are.
    pub problem_count: u64,
}

impl CheckReport {
    fn tell(&mut self, problem: Problem) {
        self.problem_count += 1;
        if self.problems.len() < TOLD {
            self.problems.push(problem);
        }
    }
}

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A link to something that is no node.
    #[error("node {} links to {}, which is not a node", from.0, to.0)]
    Link {
        /// The node.
        from: NodeId,
        /// What it links to.
        to: NodeId,
    },
    /// A node links to itself, or twice to the same.
    #[error("node {} has itself or the same neighbor twice in its list", .0.0)]
    Neighbors(NodeId),
    /// A number that is not finite where it must be.
    #[error("node {} has a scale or bias that is not finite", .0.0)]
    NotFinite(NodeId),
    /// More protected edges than edges.
    #[error("node {} protects edges that it does not have", .0.0)]
    Protected(NodeId),
}

/// Calls `each` with the rows of a live node.
fn rows_of<S: PageStore>(
    store: &S,
    g: &Geometry,
    node: &Seen,
    mut each: impl FnMut(HeapTid),
) -> Result<(), AccessError<S::Error>> {
    let mut rows = Rows::new(node.id, &node.header);
    while let Some(tid) = rows.next(store, g)? {
        each(tid);
    }
    Ok(())
}

/// Calls `each` with every row of the index and its keys, in no order. Nobody may change it meanwhile.
///
/// # Errors
/// [`AccessError`] if a page cannot be read or decoded.
pub fn rows<S: PageStore>(
    store: &S,
    mut each: impl FnMut(HeapTid, &[u8]),
) -> Result<(), AccessError<S::Error>> {
    let index = Index::open(store)?;
    let g = &index.space.geometry;
    for block in (1..store.block_count()?).map(BlockNumber) {
        for node in nodes_of(store, g, block)?.iter().filter(|node| node.header.state == State::Live) {
            rows_of(store, g, node, |tid| each(tid, &node.keys))?;
        }
    }
    Ok(())
}

/// Reads the whole index, and calls `each` with every row and its keys, in no order. Changes meanwhile may look like problems;
/// new nodes do not.
///
/// # Errors
/// [`AccessError`] if a page cannot be read or decoded.
pub fn check<S: PageStore>(
    store: &S,
    mut each: impl FnMut(HeapTid, &[u8]),
) -> Result<CheckReport, AccessError<S::Error>> {
    let index = Index::open(store)?;
    let g = &index.space.geometry;
    let pages = store.block_count()?;
    let mut report = CheckReport::default();
    let mut places = Places::new(pages as usize * g.slots());
    for block in (1..pages).map(BlockNumber) {
        for node in nodes_of(store, g, block)? {
            let mut state = node.header.state;
            if state == State::Live {
                let before = report.rows;
                rows_of(store, g, &node, |tid| {
                    report.rows += 1;
                    each(tid, &node.keys);
                })?;
                check_node(&node, &mut report);
                // A vacuum that ended between its cells and its header: the next one marks it as dead.
                if report.rows == before {
                    state = State::Dead;
                }
            }
            let (of_state, count) = match state {
                State::Free => (&mut places.free, &mut report.free),
                State::Dead => (&mut places.dead, &mut report.dead),
                State::Live => (&mut places.live, &mut report.live),
            };
            of_state.set(node.id.0);
            *count += 1;
        }
    }
    // Links may lead to nodes that came after their page was read, if somebody inserts meanwhile.
    let is_node_now = |id: NodeId| {
        let block = g.block_of(id);
        let nodes = store.block_count().is_ok_and(|count| block.0 < count).then(|| nodes_of(store, g, block));
        nodes
            .and_then(Result::ok)
            .is_some_and(|nodes| nodes.iter().any(|node| node.id == id && node.header.state != State::Free))
    };
    let mut reach = Reach::new(g, pages);
    for id in index.entry_points() {
        if places.is_node(id) {
            reach.set(id);
        } else if !places.free.has(id.0) {
            report.tell(Problem::Link { from: NodeId::NONE, to: id });
        }
    }
    reach.follow(
        store,
        g,
        |id| places.is_node(id),
        |node| {
            if places.live.has(node.id.0) {
                check_links(node, &places, is_node_now, &mut report);
            }
        },
    )?;
    let is_lost = |id: NodeId| places.live.has(id.0) && !reach.has(id);
    for block in (1..pages).map(BlockNumber) {
        if !(0..g.slots()).filter_map(|slot| g.node_id(block, slot)).any(is_lost) {
            continue;
        }
        for node in nodes_of(store, g, block)?.iter().filter(|node| is_lost(node.id)) {
            report.unreachable += 1;
            check_links(node, &places, is_node_now, &mut report);
        }
    }
    Ok(report)
}

/// What stands on the places of nodes: with what is reached, five bits for each.
struct Places {
    live: Bits,
    dead: Bits,
    free: Bits,
}

impl Places {
    fn new(count: usize) -> Self {
        Self { live: Bits::new(count), dead: Bits::new(count), free: Bits::new(count) }
    }

    fn is_node(&self, id: NodeId) -> bool {
        self.live.has(id.0) || self.dead.has(id.0)
    }
}

/// What must hold of a live node by itself.
fn check_node(node: &Seen, report: &mut CheckReport) {
    let Seen { id, header, neighbors, .. } = node;
    let mut sorted = neighbors.clone();
    sorted.push(*id);
    sorted.sort_unstable();
    if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
        report.tell(Problem::Neighbors(*id));
    }
    if !header.lead.is_finite() || !header.trail.is_finite() || !header.bias.is_finite() {
        report.tell(Problem::NotFinite(*id));
    }
    if u64::from(header.protected) >> header.degree != 0 {
        report.tell(Problem::Protected(*id));
    }
}

/// What must hold of a live node's links, once all places are known.
fn check_links(node: &Seen, places: &Places, is_node_now: impl Fn(NodeId) -> bool, report: &mut CheckReport) {
    report.edges += node.neighbors.len() as u64;
    for &to in &node.neighbors {
        if places.free.has(to.0) {
            report.stale_edges += 1;
        } else if !places.is_node(to) && !is_node_now(to) {
            report.tell(Problem::Link { from: node.id, to });
        }
    }
}
