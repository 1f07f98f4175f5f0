//! Verifying a whole index: every page decodes, links make sense, every live node can be reached.

use super::rows::Rows;
use crate::index::{AccessError, Index, damaged};
use crate::layout::node::{Node, State};
use crate::layout::{BlockNumber, HeapTid, Kind, NodeId, kind};
use crate::store::PageStore;
use std::collections::{HashMap, HashSet};

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
    pub unreachable: Vec<NodeId>,
    /// The rows, in no order.
    pub rows: Vec<HeapTid>,
    /// Broken rules.
    pub problems: Vec<Problem>,
}

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A link to something that is no node.
    #[error("node {from:?} links to {to:?}, which is no node")]
    Link {
        /// The node.
        from: NodeId,
        /// What it links to.
        to: NodeId,
    },
    /// A node links to itself, or twice to the same.
    #[error("node {0:?} has itself or the same neighbor twice in its list")]
    Neighbors(NodeId),
    /// A live node that names no row.
    #[error("live node {0:?} has no row")]
    NoRow(NodeId),
    /// A number that is not finite where it must be.
    #[error("node {0:?} has a scale or bias that is not finite")]
    NotFinite(NodeId),
    /// More protected edges than edges.
    #[error("node {0:?} protects edges that it does not have")]
    Protected(NodeId),
}

/// Reads the whole index. Nobody may change it meanwhile.
///
/// # Errors
/// [`AccessError`] if a page cannot be read or decoded.
pub fn check<S: PageStore>(store: &S) -> Result<CheckReport, AccessError<S::Error>> {
    let index = Index::open(store)?;
    let g = &index.space.geometry;
    let mut report = CheckReport::default();
    let mut nodes: HashMap<NodeId, (State, Vec<NodeId>)> = HashMap::new();
    for block in (1..store.block_count().map_err(AccessError::Store)?).map(BlockNumber) {
        for slot in 0..g.slots() {
            store.check_interrupts().map_err(AccessError::Store)?;
            let page = store.read(block).map_err(AccessError::Store)?;
            if kind(&page).map_err(damaged(block))? != Kind::Node {
                break;
            }
            let node = Node::read(&page, g, slot).map_err(damaged(block))?;
            let (header, ids) = (*node.header(), node.ids().collect::<Vec<_>>());
            drop(page);
            let Some(id) = g.node_id(block, slot) else { continue };
            match header.state {
                State::Free => report.free += 1,
                State::Dead => report.dead += 1,
                State::Live => {
                    report.live += 1;
                    report.edges += ids.len() as u64;
                    let mut sorted = ids.clone();
                    sorted.push(id);
                    sorted.sort_unstable();
                    if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
                        report.problems.push(Problem::Neighbors(id));
                    }
                    if !header.scale.is_finite() || !header.bias.is_finite() {
                        report.problems.push(Problem::NotFinite(id));
                    }
                    if u64::from(header.protected) >> header.degree != 0 {
                        report.problems.push(Problem::Protected(id));
                    }
                    let (mut rows, before) = (Rows::new(id, &header), report.rows.len());
                    while let Some(tid) = rows.next(store, g)? {
                        report.rows.push(tid);
                    }
                    if report.rows.len() == before {
                        report.problems.push(Problem::NoRow(id));
                    }
                }
            }
            nodes.insert(id, (header.state, ids));
        }
    }
    let mut reached: HashSet<NodeId> = HashSet::new();
    let mut open: Vec<NodeId> = index.entry_points().collect();
    for &id in &open {
        if !nodes.contains_key(&id) {
            report.problems.push(Problem::Link { from: NodeId::NONE, to: id });
        }
    }
    // Seconds of work in an index of millions of nodes.
    while let Some(id) = open.pop() {
        store.check_interrupts().map_err(AccessError::Store)?;
        match nodes.get(&id) {
            Some((State::Live | State::Dead, ids)) if reached.insert(id) => {
                open.extend(ids.iter().filter(|id| !reached.contains(id)));
            }
            _ => {}
        }
    }
    for (&id, (state, ids)) in &nodes {
        store.check_interrupts().map_err(AccessError::Store)?;
        if *state != State::Live {
            continue;
        }
        if !reached.contains(&id) {
            report.unreachable.push(id);
        }
        for to in ids {
            match nodes.get(to) {
                None => report.problems.push(Problem::Link { from: id, to: *to }),
                Some((State::Free, _)) => report.stale_edges += 1,
                Some(_) => {}
            }
        }
    }
    report.unreachable.sort_unstable();
    Ok(report)
}
