//! Search by distance: rows come out one by one, for as long as somebody asks.

use super::rows::Rows;
use super::walk::{Stats, Walk};
use crate::index::{AccessError, Index, damaged};
use crate::layout::node::{Header, Node, State};
use crate::layout::{BlockNumber, HeapTid, Kind, NodeId, kind};
use crate::space::{Query, VectorError};
use crate::store::PageStore;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Narrowest beam.
pub const MIN_EF: usize = 10;
/// Beam width unless told otherwise: recall@10 of .93 to .98 on the sets of the design.
pub const DEFAULT_EF: usize = 80;
/// The last rows of a beam are found less surely; a search goes on before it gives them out.
const MARGIN: usize = 30;
/// Pages read at once when the graph has nothing more.
const SWEEP_PAGES: u32 = 64;

/// How to search.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Beam width to start with.
    pub ef: usize,
    /// Stop after this many nodes; `None` goes on to the last row.
    pub max_hops: Option<u64>,
    /// Name the next pages to the store ahead of time.
    pub prefetch: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { ef: DEFAULT_EF, max_hops: None, prefetch: false }
    }
}

/// A row, nearest first as far as known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// The row.
    pub tid: HeapTid,
    /// The row's distance is not below this. NaN if no distance is a number.
    pub lower_bound: f64,
    /// Its node.
    pub node: NodeId,
}

/// A node found, with its rows' common bound.
struct Found {
    lower_bound: f64,
    id: NodeId,
    header: Header,
}

impl PartialEq for Found {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Found {}
impl PartialOrd for Found {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Found {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.lower_bound.total_cmp(&other.lower_bound).then(self.id.cmp(&other.id))
    }
}

/// A search under way. It holds no lock between calls.
pub struct Search {
    walk: Walk,
    found: BinaryHeap<Reverse<Found>>,
    rows: Option<(Rows, f64, NodeId)>,
    given: usize,
    margin: usize,
    max_hops: Option<u64>,
    sweep: Option<u32>,
    limited: bool,
}

impl Search {
    /// Prepares a search; nothing is read yet.
    ///
    /// # Errors
    /// [`VectorError`] if the vector does not fit the index.
    pub fn new(index: &Index, vector: &[f32], options: &Options) -> Result<Self, VectorError> {
        let query = Query::new(&index.space, vector)?;
        let ef = options.ef.max(MIN_EF);
        Ok(Self {
            walk: Walk::new(index, query, ef, options.prefetch),
            found: BinaryHeap::new(),
            rows: None,
            given: 0,
            margin: MARGIN.min(ef / 2),
            max_hops: options.max_hops,
            sweep: None,
            limited: false,
        })
    }

    /// What it cost so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.walk.stats
    }

    /// Whether it stopped at [`Options::max_hops`] although there may be more rows.
    #[must_use]
    pub fn limited(&self) -> bool {
        self.limited
    }

    /// The next row, `None` after the last. Every row that the index held when the search began comes
    /// out exactly once, unless the search was limited. Bounds ascend from row to row, save for rows
    /// that were found only after the beam was widened.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn next<S: PageStore>(
        &mut self,
        store: &S,
        index: &Index,
    ) -> Result<Option<Hit>, AccessError<S::Error>> {
        loop {
            if let Some((rows, lower_bound, node)) = &mut self.rows {
                if let Some(tid) = rows.next(store)? {
                    return Ok(Some(Hit { tid, lower_bound: *lower_bound, node: *node }));
                }
                self.rows = None;
            }
            self.settle(store, index)?;
            let Some(Reverse(found)) = self.found.pop() else {
                return Ok(None);
            };
            self.given += 1;
            self.rows = Some((Rows::new(found.id, &found.header), found.lower_bound, found.id));
        }
    }

    /// Walks on until the next row can be given out, or there is nothing more to walk.
    fn settle<S: PageStore>(&mut self, store: &S, index: &Index) -> Result<(), AccessError<S::Error>> {
        loop {
            if self.sweep.is_some() {
                if self.found.is_empty() {
                    self.sweep(store, index)?;
                }
                return Ok(());
            }
            loop {
                if self.max_hops.is_some_and(|max| self.walk.stats.hops >= max) {
                    self.limited = true;
                    return Ok(());
                }
                let found = &mut self.found;
                let more = self.walk.step(store, index, |query, id, node, score| {
                    keep(found, query, id, node, score);
                })?;
                if !more {
                    break;
                }
            }
            if !self.found.is_empty() && self.given + self.margin < self.walk.width() {
                return Ok(());
            }
            let width = self.walk.width() + self.walk.width() / 2;
            if !self.walk.resume(index, width) {
                self.sweep = Some(1);
            }
        }
    }

    /// Reads pages in order for live nodes that no link led to, until some are found or the index ends.
    fn sweep<S: PageStore>(&mut self, store: &S, index: &Index) -> Result<(), AccessError<S::Error>> {
        let g = &index.space.geometry;
        let end = store.block_count().map_err(AccessError::Store)?;
        while let Some(block) = self.sweep.filter(|&b| b < end && self.found.is_empty()) {
            for block in (block..end.min(block.saturating_add(SWEEP_PAGES))).map(BlockNumber) {
                store.check_interrupts().map_err(AccessError::Store)?;
                let page = store.read(block).map_err(AccessError::Store)?;
                self.walk.stats.swept_pages += 1;
                if kind(&page).map_err(damaged(block))? != Kind::Node {
                    continue;
                }
                for slot in 0..g.slots() {
                    let node = Node::read(&page, g, slot).map_err(damaged(block))?;
                    let Some(id) = g.node_id(block, slot) else { continue };
                    if node.header().state == State::Live && self.walk.mark(id) {
                        let query = self.walk.query();
                        let score = query.score(node.header().scale, node.header().bias, node.vector());
                        keep(&mut self.found, query, id, &node, score);
                    }
                }
            }
            self.sweep = Some(block.saturating_add(SWEEP_PAGES));
        }
        Ok(())
    }
}

fn keep(found: &mut BinaryHeap<Reverse<Found>>, query: &Query, id: NodeId, node: &Node, score: f32) {
    let header = *node.header();
    if header.state == State::Live {
        let lower_bound = query.lower_bound(score, header.scale, header.error);
        found.push(Reverse(Found { lower_bound, id, header }));
    }
}
