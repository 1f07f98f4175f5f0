//! Walking the graph: visit the best candidate, estimate its neighbors, repeat.

use super::filtered::{Filtered, Wanted, below};
use super::frontier::Frontier;
use super::key::{IdSet, Key};
use super::nearest::Nearest;
use crate::filter::Filter;
use crate::index::{AccessError, Decoded, Index};
use crate::layout::node::{Node, State};
use crate::layout::{BlockNumber, MAX_DEGREE, NodeId};
use crate::quantize::{fastscan::Table, residual};
use crate::space::Query;
use crate::store::PageStore;

/// What a walk has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Nodes visited: pages read, and exact distances to quantized vectors.
    pub hops: u64,
    /// Neighbors estimated from codes.
    pub estimates: u64,
    /// Links that led to an empty slot.
    pub stale_links: u64,
    /// Pages read in block order, once the graph had nothing more.
    pub swept_pages: u64,
    /// Nodes found when rows with larger bounds had been returned; their rows come last.
    pub late: u64,
}

/// Entries that a walk knows at least, if there are as many. Nearer rows soon displace most of them; the others may be
/// visited later, for another region may hold what far ranks need.
const KNOWN_ENTRIES: usize = 256;
/// Entries that are scored at least, in multiples of those, if there are as many.
const SCORED: usize = 4;
/// Entries that are collected before the best are chosen from them, in multiples of those.
const COLLECTED: usize = 8;
/// Pages named to the store ahead of their use.
const PREFETCH: usize = 4;

/// The state of a walk. Candidates are visited by ascending estimate for as long as the caller asks.
pub struct Walk {
    query: Query,
    frontier: Frontier,
    visited: IdSet,
    /// Live nodes that were visited and pass the filter.
    nearest: Nearest,
    filtered: Option<Box<Filtered>>,
    prefetch: bool,
    pub(super) stats: Stats,
}

impl Walk {
    /// Starts at the entries. `width` is about the number of nodes that the caller wants to see.
    pub fn new(index: &Index, query: Query, width: usize, filter: Option<Filter>, prefetch: bool) -> Self {
        let filtered = filter.map(|filter| Box::new(Filtered::new(filter)));
        Self::start(index, query, width, filtered, prefetch)
    }

    /// Starts a walk without filter: towards the nearest by L2 if the query is a [stored](Query::stored) vector, whatever the index's metric.
    pub fn nearest(index: &Index, query: Query, width: usize) -> Self {
        Self::start(index, query, width, None, false)
    }

    fn start(
        index: &Index,
        query: Query,
        width: usize,
        filtered: Option<Box<Filtered>>,
        prefetch: bool,
    ) -> Self {
        let mut walk = Self {
            query,
            frontier: Frontier::default(),
            visited: IdSet::default(),
            nearest: Nearest::default(),
            filtered,
            prefetch,
            stats: Stats::default(),
        };
        let known = width.max(KNOWN_ENTRIES);
        let scored = known.saturating_mul(SCORED);
        let mut entries: Vec<Key> = Vec::new();
        let mut worst = f32::INFINITY;
        let (filtered, frontier) = (&walk.filtered, &mut walk.frontier);
        let filter = filtered.as_ref().map(|filtered| filtered.filter());
        let share = index.score_entries(&walk.query, scored, filter, known, |scores, ids, may_pass| {
            for i in (0..ids.len()).filter(|&i| may_pass[i] && ids[i] != NodeId::NONE) {
                frontier.push(Key::new(scores[i], ids[i]));
            }
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
        match &mut walk.filtered {
            // What may pass is in the other one as well, and is visited once.
            Some(filtered) => {
                filtered.expect_share(share);
                entries.into_iter().for_each(|entry| filtered.push_other(entry));
            }
            None => entries.into_iter().for_each(|entry| walk.frontier.push(entry)),
        }
        walk
    }

    /// The query.
    #[must_use]
    pub fn query(&self) -> &Query {
        &self.query
    }

    /// What rows must pass.
    #[must_use]
    pub fn filter(&self) -> Option<&Filter> {
        self.filtered.as_ref().map(|filtered| filtered.filter())
    }

    /// Nodes that were visited, and slots that turned out to be empty.
    #[must_use]
    pub fn visited(&self) -> &IdSet {
        &self.visited
    }

    /// Visits the best candidate, and shows it to `visit` with its score if it passes the filter. False if as many live
    /// nodes that were visited and pass score better than it is estimated, or if there is none. A visited node may be dead.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn step<S: PageStore>(
        &mut self,
        store: &S,
        index: &Index,
        wanted: Wanted,
        visit: impl FnMut(&Query, NodeId, &Node, f32),
    ) -> Result<bool, AccessError<S::Error>> {
        let next = match &mut self.filtered {
            Some(filtered) => filtered.next(wanted, &mut self.frontier, &mut self.nearest, &self.visited),
            None => {
                let Wanted { rows, lookahead, due } = wanted;
                let limit = if due { below(self.nearest.score_of(rows + lookahead)) } else { Key::LAST };
                self.frontier.pop_below(limit, &self.visited)
            }
        };
        let Some(key) = next else { return Ok(false) };
        self.visited.insert(key.id());
        self.expand(store, index, key, visit)?;
        Ok(true)
    }

    /// Reads a node and takes its neighbors for candidates.
    fn expand<S: PageStore>(
        &mut self,
        store: &S,
        index: &Index,
        key: Key,
        mut visit: impl FnMut(&Query, NodeId, &Node, f32),
    ) -> Result<(), AccessError<S::Error>> {
        store.check_interrupts()?;
        let g = &index.space.geometry;
        if self.prefetch {
            self.name_upcoming(store, index);
        }
        let id = key.id();
        let block = g.block_of(id);
        let page = store.read(block)?;
        let node = Node::read(&page, g, g.slot_of(id)).at(block)?;
        let header = node.header();
        if header.state == State::Free {
            self.stats.stale_links += 1;
            return Ok(());
        }
        self.stats.hops += 1;
        self.stats.estimates += header.degree as u64;
        let (score, estimates) = if self.query.is_among_products() {
            let score = self.query.score(&index.space, node.stored());
            (score, l2_estimates(index, &self.query, &node, score))
        } else {
            self.query.estimates(&index.space, &node)
        };
        let passes = self.filter().is_none_or(|filter| filter.admits(node.keys()));
        if header.state == State::Live {
            if let Some(filtered) = &mut self.filtered {
                filtered.offer(Key::new(score, id));
            }
            if passes {
                self.nearest.offer(Key::new(score, id));
            }
        }
        if passes {
            visit(&self.query, id, &node, score);
        }
        match &mut self.filtered {
            Some(filtered) => filtered.expand(&node, passes, &estimates, &mut self.frontier),
            None => {
                for (id, estimate) in node.ids().zip(estimates) {
                    self.frontier.push(Key::new(estimate, id));
                }
            }
        }
        Ok(())
    }

    /// Names the pages of the next candidates to the store.
    fn name_upcoming<S: PageStore>(&self, store: &S, index: &Index) {
        let mut blocks = [BlockNumber(0); PREFETCH];
        let mut count = 0;
        for key in self.frontier.upcoming().take(PREFETCH) {
            blocks[count] = index.space.geometry.block_of(key.id());
            count += 1;
        }
        store.prefetch(&blocks[..count]);
    }
}

/// Estimated squared L2 distances of a node's neighbors, in an index whose own estimates are inner products.
pub(super) fn l2_estimates(index: &Index, query: &Query, node: &Node, score: f32) -> [f32; MAX_DEGREE] {
    let mut difference = index.space.decoded(node.stored());
    difference.iter_mut().zip(query.turned()).for_each(|(x, q)| *x = q - *x);
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
