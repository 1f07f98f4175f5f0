//! Walking the graph: expand the best candidate, estimate its neighbors, repeat.

use super::beam::{Beam, IdSet, Key};
use crate::index::{AccessError, Index, damaged};
use crate::layout::NodeId;
use crate::layout::node::{Node, State};
use crate::quantize::{fastscan::Table, residual};
use crate::space::Query;
use crate::store::PageStore;

/// What a walk has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Nodes expanded: pages read, and exact distances to quantized vectors.
    pub hops: u64,
    /// Neighbors estimated from codes.
    pub estimates: u64,
    /// Times the beam was widened to go on.
    pub continuations: u64,
    /// Links that led to an empty slot.
    pub stale_links: u64,
    /// Pages read in block order, once the graph had nothing more.
    pub swept_pages: u64,
    /// Nodes found when rows with larger bounds had been given out; their rows come last.
    pub late: u64,
}

/// Most rejected candidates kept before copies of the same node are thrown out.
const COMPACT_AT: usize = 1 << 16;
/// Pages named to the store ahead of their use.
const PREFETCH: usize = 4;

/// The state of a walk; it can be resumed with a wider beam for as long as there are nodes.
pub struct Walk {
    query: Query,
    by_l2_in_ip_graph: bool,
    beam: Beam,
    expanded: IdSet,
    /// Candidates that fell off the beam or never got in: a plain list until somebody asks to go on.
    rejected: Vec<Key>,
    compact_at: usize,
    prefetch: bool,
    pub(super) stats: Stats,
}

impl Walk {
    /// Starts at the best entries.
    pub fn new(index: &Index, query: Query, width: usize, prefetch: bool) -> Self {
        Self::start(index, query, width, prefetch, false)
    }

    /// Starts a walk towards the nearest by L2, whatever the index's metric: what an insert needs.
    pub fn nearest(index: &Index, query: Query, width: usize) -> Self {
        let other = index.space.metric == crate::Metric::InnerProduct;
        Self::start(index, query, width, false, other)
    }

    fn start(index: &Index, query: Query, width: usize, prefetch: bool, by_l2_in_ip_graph: bool) -> Self {
        let mut walk = Self {
            query,
            by_l2_in_ip_graph,
            beam: Beam::new(width.max(1)),
            expanded: IdSet::default(),
            rejected: Vec::new(),
            compact_at: COMPACT_AT,
            prefetch,
            stats: Stats::default(),
        };
        for (score, id) in index.best_entries(&walk.query) {
            walk.offer(Key::new(score, id));
        }
        walk
    }

    /// The query.
    #[must_use]
    pub fn query(&self) -> &Query {
        &self.query
    }

    /// Beam width.
    #[must_use]
    pub fn width(&self) -> usize {
        self.beam.width()
    }

    /// Nodes that were expanded.
    #[must_use]
    pub fn expanded(&self) -> &IdSet {
        &self.expanded
    }

    /// Marks a node that was met by other means; false if it was expanded before.
    pub fn mark(&mut self, id: NodeId) -> bool {
        self.expanded.insert(id)
    }

    fn offer(&mut self, key: Key) {
        if key < self.beam.threshold() {
            self.rejected.extend(self.beam.insert(key));
        } else {
            self.rejected.push(key);
        }
    }

    /// Expands the best candidate and shows it to `visit` with its score; false if the beam has none.
    /// A visited node may be dead.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn step<S: PageStore>(
        &mut self,
        store: &S,
        index: &Index,
        mut visit: impl FnMut(&Query, NodeId, &Node, f32),
    ) -> Result<bool, AccessError<S::Error>> {
        let Some(key) = self.beam.pop() else {
            return Ok(false);
        };
        let id = key.id();
        if !self.expanded.insert(id) {
            self.beam.discard_popped();
            return Ok(true);
        }
        store.check_interrupts().map_err(AccessError::Store)?;
        let g = &index.space.geometry;
        if self.prefetch {
            let mut blocks = [crate::layout::BlockNumber(0); PREFETCH];
            let mut count = 0;
            for (place, key) in blocks.iter_mut().zip(self.beam.upcoming()) {
                *place = g.block_of(key.id());
                count += 1;
            }
            store.prefetch(&blocks[..count]);
        }
        let block = g.block_of(id);
        let page = store.read(block).map_err(AccessError::Store)?;
        let node = Node::read(&page, g, g.slot_of(id)).map_err(damaged(block))?;
        if node.header().state == State::Free {
            self.stats.stale_links += 1;
            self.beam.discard_popped();
            return Ok(true);
        }
        self.stats.hops += 1;
        self.stats.estimates += node.header().degree as u64;
        let header = node.header();
        let bias = if self.by_l2_in_ip_graph { index.space.norm_squared(&node) } else { header.bias };
        let score = self.query.score(header.scale, bias, node.vector());
        visit(&self.query, id, &node, score);
        let estimates = if self.by_l2_in_ip_graph {
            l2_estimates(index, &self.query, &node, score)
        } else {
            let (adds, scales) = node.factors();
            self.query.estimates(score, &adds, &scales, node.codes())
        };
        for (id, estimate) in node.ids().zip(estimates) {
            let key = Key::new(estimate, id);
            if key >= self.beam.threshold() {
                self.rejected.push(key);
            } else if !self.expanded.contains(id) {
                self.rejected.extend(self.beam.insert(key));
            }
        }
        if self.rejected.len() > self.compact_at {
            self.compact();
        }
        Ok(true)
    }

    /// Widens the beam and fills it with the best of what fell off; false if nothing is left. The first
    /// time, the rest of the entry table joins: another region may hold what the next rows need.
    pub fn resume(&mut self, index: &Index, width: usize) -> bool {
        if self.stats.continuations == 0 {
            let rejected = &mut self.rejected;
            index.score_entries(&self.query, |score, id| rejected.push(Key::new(score, id)));
        }
        self.stats.continuations += 1;
        self.compact();
        self.beam.widen(width);
        let mut room = 0;
        while room < self.rejected.len() && self.rejected[room] < self.beam.threshold() {
            // A beam that is full pushes others out; they come behind all that follows here.
            if self.beam.insert(self.rejected[room]).is_some() {
                break;
            }
            room += 1;
        }
        self.rejected.drain(..room);
        room > 0
    }

    /// Sorts the rejected and keeps each node once, with its best estimate, if it was not expanded.
    fn compact(&mut self) {
        self.rejected.sort_unstable();
        let mut seen = IdSet::default();
        let expanded = &self.expanded;
        self.rejected
            .retain(|key| key.id() != NodeId::NONE && !expanded.contains(key.id()) && seen.insert(key.id()));
        self.compact_at = COMPACT_AT.max(2 * self.rejected.len());
    }
}

/// Estimated squared L2 distances of a node's neighbors, in an index whose own estimates are inner products.
pub(super) fn l2_estimates(
    index: &Index,
    query: &Query,
    node: &Node,
    score: f32,
) -> [f32; crate::layout::MAX_DEGREE] {
    let scale = node.header().scale;
    let difference: Vec<f32> =
        query.rotated().iter().zip(node.vector()).map(|(q, &c)| q - scale * f32::from(c)).collect();
    let mut table = Table::new(index.space.geometry.code_dim());
    table.fill(&difference);
    let sums = table.sums(index.space.kernels, node.codes());
    std::array::from_fn(|i| {
        if i < node.header().degree {
            residual::squared_distance(index.space.metric, score, &node.edge(i), sums[i])
        } else {
            f32::INFINITY
        }
    })
}
