//! Walking the graph: expand the best candidate, estimate its neighbors, repeat.

use super::beam::{Beam, IdSet, Key};
use super::frontier::Frontier;
use super::patience::Deviation;
use crate::index::{AccessError, Index, damaged};
use crate::layout::node::{Node, State};
use crate::layout::{BlockNumber, MAX_DEGREE, NodeId};
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
    /// Of the hops, those beyond the beam.
    pub extra_hops: u64,
    /// Links that led to an empty slot.
    pub stale_links: u64,
    /// Pages read in block order, once the graph had nothing more.
    pub swept_pages: u64,
    /// Nodes found when rows with larger bounds had been given out; their rows come last.
    pub late: u64,
}

/// Entries that a walk knows at least, if there are as many. The best fill the beam, and nearer rows soon displace
/// them; the others may join later, for another region may hold what far ranks need.
const KNOWN_ENTRIES: usize = 256;
/// Entries that are collected before the best are chosen from them, in multiples of those.
const COLLECTED: usize = 8;
/// Pages named to the store ahead of their use.
const PREFETCH: usize = 4;

/// The state of a walk: first through the beam, then on among what the beam left, for as long as there are nodes.
pub struct Walk {
    query: Query,
    by_l2_in_ip_graph: bool,
    beam: Beam,
    /// Whether the beam is done: what is found joins the frontier.
    beyond: bool,
    frontier: Frontier,
    expanded: IdSet,
    deviation: Deviation,
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
        let width = width.max(1);
        let mut walk = Self {
            query,
            by_l2_in_ip_graph,
            beam: Beam::new(width),
            beyond: false,
            frontier: Frontier::default(),
            expanded: IdSet::default(),
            deviation: Deviation::default(),
            prefetch,
            stats: Stats::default(),
        };
        let known = width.max(KNOWN_ENTRIES);
        let mut entries: Vec<Key> = Vec::new();
        let mut worst = f32::INFINITY;
        index.score_entries(&walk.query, |scores, ids| {
            // Not a number is as good as any, for the walk of a query that has no distances to go on.
            let is_wanted = |score: f32| score < worst || score.is_nan();
            // Most blocks hold nothing of interest, which one look tells.
            if !scores.iter().any(|&score| is_wanted(score)) {
                return;
            }
            let wanted =
                scores.iter().zip(ids).filter(|&(&score, &id)| is_wanted(score) && id != NodeId::NONE);
            entries.extend(wanted.map(|(&score, &id)| Key::new(score, id)));
            if entries.len() > COLLECTED * known {
                worst = entries.select_nth_unstable(known).1.score();
                entries.truncate(known);
            }
        });
        let best = entries.len().min(width);
        if best < entries.len() {
            entries.select_nth_unstable(best);
        }
        for (i, entry) in entries.into_iter().enumerate() {
            if i < best {
                walk.offer(entry);
            } else {
                walk.frontier.push(entry);
            }
        }
        walk
    }

    /// The query.
    #[must_use]
    pub fn query(&self) -> &Query {
        &self.query
    }

    /// Nodes that were expanded.
    #[must_use]
    pub fn expanded(&self) -> &IdSet {
        &self.expanded
    }

    /// How far its estimates were off.
    #[must_use]
    pub fn deviation(&self) -> Deviation {
        self.deviation
    }

    /// Marks a node that was met by other means; false if it was expanded before.
    pub fn mark(&mut self, id: NodeId) -> bool {
        self.expanded.insert(id)
    }

    #[inline]
    fn offer(&mut self, key: Key) {
        if self.beyond || key >= self.beam.threshold() {
            self.frontier.push(key);
        } else if !self.expanded.contains(key.id())
            && let Some(out) = self.beam.insert(key)
        {
            self.frontier.push(out);
        }
    }

    /// Expands the beam's best candidate and shows it to `visit` with its score; false if the beam has none.
    /// A visited node may be dead.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn step<S: PageStore>(
        &mut self,
        store: &S,
        index: &Index,
        visit: impl FnMut(&Query, NodeId, &Node, f32),
    ) -> Result<bool, AccessError<S::Error>> {
        let Some(key) = self.beam.pop() else {
            return Ok(false);
        };
        // A node may enter the beam several times, with different estimates.
        if !self.expanded.insert(key.id()) || !self.expand(store, index, key, visit)? {
            self.beam.discard_popped();
        }
        Ok(true)
    }

    /// As [`Walk::step`], among the candidates that the beam left, once it has nothing more; false if none of
    /// them is estimated below the limit.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn step_beyond<S: PageStore>(
        &mut self,
        store: &S,
        index: &Index,
        limit: f32,
        visit: impl FnMut(&Query, NodeId, &Node, f32),
    ) -> Result<bool, AccessError<S::Error>> {
        self.beyond = true;
        let Some(key) = self.frontier.pop_below(Key::new(limit, NodeId::NONE), &self.expanded) else {
            return Ok(false);
        };
        self.expanded.insert(key.id());
        let useful = self.expand(store, index, key, visit)?;
        self.stats.extra_hops += u64::from(useful);
        Ok(true)
    }

    /// Reads a node and offers its neighbors; false if the slot is free.
    fn expand<S: PageStore>(
        &mut self,
        store: &S,
        index: &Index,
        key: Key,
        mut visit: impl FnMut(&Query, NodeId, &Node, f32),
    ) -> Result<bool, AccessError<S::Error>> {
        store.check_interrupts().map_err(AccessError::Store)?;
        let g = &index.space.geometry;
        if self.prefetch {
            self.name_upcoming(store, index);
        }
        let id = key.id();
        let block = g.block_of(id);
        let page = store.read(block).map_err(AccessError::Store)?;
        let node = Node::read(&page, g, g.slot_of(id)).map_err(damaged(block))?;
        let header = node.header();
        if header.state == State::Free {
            self.stats.stale_links += 1;
            return Ok(false);
        }
        self.stats.hops += 1;
        self.stats.estimates += header.degree as u64;
        let bias = if self.by_l2_in_ip_graph { index.space.norm_squared(&node) } else { header.bias };
        let score = self.query.score(header.scale, bias, node.vector());
        self.deviation.add(key.score(), score);
        visit(&self.query, id, &node, score);
        let estimates = if self.by_l2_in_ip_graph {
            l2_estimates(index, &self.query, &node, score)
        } else {
            let (adds, scales) = node.factors();
            self.query.estimates(score, &adds, &scales, node.codes())
        };
        for (id, estimate) in node.ids().zip(estimates) {
            self.offer(Key::new(estimate, id));
        }
        Ok(true)
    }

    /// Names the pages of the next candidates to the store.
    fn name_upcoming<S: PageStore>(&self, store: &S, index: &Index) {
        let mut blocks = [BlockNumber(0); PREFETCH];
        let mut count = 0;
        let block = |key: Key| index.space.geometry.block_of(key.id());
        let mut name = |key| {
            blocks[count] = block(key);
            count += 1;
        };
        if self.beyond {
            self.frontier.upcoming().take(PREFETCH).for_each(&mut name);
        } else {
            self.beam.upcoming().take(PREFETCH).for_each(&mut name);
        }
        store.prefetch(&blocks[..count]);
    }
}

/// Estimated squared L2 distances of a node's neighbors, in an index whose own estimates are inner products.
pub(super) fn l2_estimates(index: &Index, query: &Query, node: &Node, score: f32) -> [f32; MAX_DEGREE] {
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
