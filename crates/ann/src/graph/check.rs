//! Verifying a whole index: every page decodes, links make sense, every live node can be reached.
//!
//! An index may be larger than memory: what is remembered of a node is five bits, and of its links and rows nothing.

use super::rows::Rows;
use crate::bits::Bits;
use crate::index::{AccessError, Index, damaged};
use crate::layout::node::{Header, Node, State};
use crate::layout::{BlockNumber, Geometry, HeapTid, Kind, NodeId, kind};
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

/// A node of a page, with its neighbors.
struct Seen {
    id: NodeId,
    header: Header,
    neighbors: Vec<NodeId>,
}

/// The nodes of a page; none if it is no node page.
fn nodes_of<S: PageStore>(
    store: &S,
    g: &Geometry,
    block: BlockNumber,
) -> Result<Vec<Seen>, AccessError<S::Error>> {
    store.check_interrupts().map_err(AccessError::Store)?;
    let page = store.read(block).map_err(AccessError::Store)?;
    if kind(&page).map_err(damaged(block))? != Kind::Node {
        return Ok(Vec::new());
    }
    let mut seen = Vec::with_capacity(g.slots());
    for slot in 0..g.slots() {
        let node = Node::read(&page, g, slot).map_err(damaged(block))?;
        if let Some(id) = g.node_id(block, slot) {
            seen.push(Seen { id, header: *node.header(), neighbors: node.ids().collect() });
        }
    }
    Ok(seen)
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

/// Calls `each` with every row of the index, in no order. Nobody may change it meanwhile.
///
/// # Errors
/// [`AccessError`] if a page cannot be read or decoded.
pub fn rows<S: PageStore>(store: &S, mut each: impl FnMut(HeapTid)) -> Result<(), AccessError<S::Error>> {
    let index = Index::open(store)?;
    let g = &index.space.geometry;
    for block in (1..store.block_count().map_err(AccessError::Store)?).map(BlockNumber) {
        for node in nodes_of(store, g, block)?.iter().filter(|node| node.header.state == State::Live) {
            rows_of(store, g, node, &mut each)?;
        }
    }
    Ok(())
}

/// Reads the whole index, and calls `each` with every row, in no order. Nobody may change it meanwhile.
///
/// # Errors
/// [`AccessError`] if a page cannot be read or decoded.
pub fn check<S: PageStore>(
    store: &S,
    mut each: impl FnMut(HeapTid),
) -> Result<CheckReport, AccessError<S::Error>> {
    let index = Index::open(store)?;
    let g = &index.space.geometry;
    let pages = store.block_count().map_err(AccessError::Store)?;
    let mut report = CheckReport::default();
    let mut nodes = Nodes::new(pages as usize * g.slots());
    for block in (1..pages).map(BlockNumber) {
        for node in nodes_of(store, g, block)? {
            let (places, count) = match node.header.state {
                State::Free => (&mut nodes.free, &mut report.free),
                State::Dead => (&mut nodes.dead, &mut report.dead),
                State::Live => (&mut nodes.live, &mut report.live),
            };
            places.set(node.id.0);
            *count += 1;
            if node.header.state == State::Live {
                let before = report.rows;
                rows_of(store, g, &node, |tid| {
                    report.rows += 1;
                    each(tid);
                })?;
                check_node(&node, report.rows - before, &mut report);
            }
        }
    }
    for id in index.entry_points() {
        if !nodes.reach(id) && !nodes.free.has(id.0) {
            report.tell(Problem::Link { from: NodeId::NONE, to: id });
        }
    }
    follow(store, g, pages, &mut nodes, &mut report)?;
    for block in (1..pages).map(BlockNumber) {
        if nodes.any(g, block, |nodes, id| nodes.live.has(id.0) && !nodes.reached.has(id.0)) {
            for node in nodes_of(store, g, block)? {
                if nodes.live.has(node.id.0) && !nodes.reached.has(node.id.0) {
                    report.unreachable += 1;
                    check_links(&node, &nodes, &mut report);
                }
            }
        }
    }
    Ok(report)
}

/// What is known of the nodes: five bits for each place.
struct Nodes {
    live: Bits,
    dead: Bits,
    free: Bits,
    /// Live and dead nodes that a path from an entry leads to.
    reached: Bits,
    /// Those whose own links were followed.
    expanded: Bits,
}

impl Nodes {
    fn new(places: usize) -> Self {
        let none = || Bits::new(places);
        Self { live: none(), dead: none(), free: none(), reached: none(), expanded: none() }
    }

    /// A link leads to this place; false if there is no node to reach.
    fn reach(&mut self, id: NodeId) -> bool {
        let is_node = self.live.has(id.0) || self.dead.has(id.0);
        if is_node {
            self.reached.set(id.0);
        }
        is_node
    }

    fn is_open(&self, id: NodeId) -> bool {
        self.reached.has(id.0) && !self.expanded.has(id.0)
    }

    /// Whether this holds for a place of a page.
    fn any(&self, g: &Geometry, block: BlockNumber, holds: impl Fn(&Self, NodeId) -> bool) -> bool {
        (0..g.slots()).filter_map(|slot| g.node_id(block, slot)).any(|id| holds(self, id))
    }
}

/// Follows links from all that is reached, in passes over the pages, to and fro. Each page is read at most once for
/// each of its nodes, and mostly once for several.
fn follow<S: PageStore>(
    store: &S,
    g: &Geometry,
    pages: u32,
    nodes: &mut Nodes,
    report: &mut CheckReport,
) -> Result<(), AccessError<S::Error>> {
    let mut forth = true;
    loop {
        let mut done = true;
        store.check_interrupts().map_err(AccessError::Store)?;
        for i in 1..pages {
            let block = BlockNumber(if forth { i } else { pages - i });
            if !nodes.any(g, block, Nodes::is_open) {
                continue;
            }
            done = false;
            let here = nodes_of(store, g, block)?;
            while let Some(node) = here.iter().find(|node| nodes.is_open(node.id)) {
                nodes.expanded.set(node.id.0);
                for &to in &node.neighbors {
                    nodes.reach(to);
                }
                if nodes.live.has(node.id.0) {
                    check_links(node, nodes, report);
                }
            }
        }
        if done {
            return Ok(());
        }
        forth = !forth;
    }
}

/// What must hold of a live node by itself.
fn check_node(node: &Seen, rows: u64, report: &mut CheckReport) {
    let Seen { id, header, neighbors } = node;
    let mut sorted = neighbors.clone();
    sorted.push(*id);
    sorted.sort_unstable();
    if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
        report.tell(Problem::Neighbors(*id));
    }
    if !header.scale.is_finite() || !header.bias.is_finite() {
        report.tell(Problem::NotFinite(*id));
    }
    if u64::from(header.protected) >> header.degree != 0 {
        report.tell(Problem::Protected(*id));
    }
    if rows == 0 {
        report.tell(Problem::NoRow(*id));
    }
}

/// What must hold of a live node's links, once all places are known.
fn check_links(node: &Seen, nodes: &Nodes, report: &mut CheckReport) {
    report.edges += node.neighbors.len() as u64;
    for &to in &node.neighbors {
        if nodes.free.has(to.0) {
            report.stale_edges += 1;
        } else if !nodes.live.has(to.0) && !nodes.dead.has(to.0) {
            report.tell(Problem::Link { from: node.id, to });
        }
    }
}
