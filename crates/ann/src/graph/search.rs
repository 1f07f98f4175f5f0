//! Search by distance: rows come out one by one, for as long as somebody asks.

use super::order::{Found, Order};
use super::patience;
use super::rows::Rows;
use super::walk::{Stats, Walk};
use crate::index::{AccessError, Index, damaged};
use crate::layout::node::{Node, State};
use crate::layout::{BlockNumber, HeapTid, Kind, NodeId, kind};
use crate::space::{Query, VectorError};
use crate::store::PageStore;

/// Narrowest beam.
pub const MIN_EF: usize = 10;
/// Beam width unless told otherwise: recall@10 of .95 and more on the benchmark's sets.
pub const DEFAULT_EF: usize = 100;
/// Most nodes that wait during the last pass over the pages, 64 MB of them; with more, order is given up.
const MAX_WAITING: usize = (64 << 20) / size_of::<Found>();

/// How to search.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Beam width: how many candidates are looked at before the first row. How far a search goes on before the
    /// rows behind it is in proportion.
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
    /// Nor above this.
    pub upper_bound: f64,
    /// No other row's bounds overlap these, but for late ones: the row is at its place whatever its distance.
    pub placed: bool,
    /// Its node.
    pub node: NodeId,
    /// It was found when rows with larger bounds had been given out. Bounds do not descend before the first
    /// such row, and there is nothing else behind it.
    pub late: bool,
}

/// A search under way. It holds no lock between calls.
pub struct Search {
    walk: Walk,
    order: Order,
    rows: Option<(Rows, Hit)>,
    ef: usize,
    given: usize,
    /// The largest upper bound given out.
    passed: f64,
    /// Whether the beam has more to expand.
    beaming: bool,
    max_hops: Option<u64>,
    /// The next page of the last pass, once the graph has nothing more.
    sweep: Option<u32>,
    max_waiting: usize,
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
            order: Order::default(),
            rows: None,
            ef,
            given: 0,
            passed: f64::NEG_INFINITY,
            beaming: true,
            max_hops: options.max_hops,
            sweep: None,
            max_waiting: MAX_WAITING,
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
    /// out exactly once, unless the search was limited. Bounds never descend, until [`Hit::late`] says so.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn next<S: PageStore>(
        &mut self,
        store: &S,
        index: &Index,
    ) -> Result<Option<Hit>, AccessError<S::Error>> {
        loop {
            if let Some((rows, hit)) = &mut self.rows {
                if let Some(tid) = rows.next(store, &index.space.geometry)? {
                    return Ok(Some(Hit { tid, ..*hit }));
                }
                self.rows = None;
            }
            self.settle(store, index)?;
            let Some(found) = self.order.pop() else {
                return Ok(None);
            };
            self.given += 1;
            let Found { lower_bound, upper_bound, id: node, .. } = found;
            let (header, late) = (found.header(), self.order.released());
            let mut placed = !late && header.tids == 0 && self.passed < lower_bound;
            self.passed = self.passed.max(upper_bound);
            if placed {
                // The server needs to know the next one, too, before it lets a row go.
                self.settle(store, index)?;
                placed = !self.order.released()
                    && self.order.peek().is_some_and(|next| upper_bound < next.lower_bound);
            }
            let hit = Hit { tid: header.tid, lower_bound, upper_bound, placed, node, late };
            self.rows = Some((Rows::new(node, &header), hit));
        }
    }

    /// Goes on until the next row can be given out, or there is nothing more.
    fn settle<S: PageStore>(&mut self, store: &S, index: &Index) -> Result<(), AccessError<S::Error>> {
        while self.sweep.is_none() && !self.limited {
            let (order, mut late) = (&mut self.order, 0);
            let Stats { hops, extra_hops, .. } = self.walk.stats;
            let deviation = self.walk.deviation();
            let due = order
                .peek()
                .map(|due| patience::limit(self.given + 1, due.score, self.ef, hops, extra_hops, deviation));
            let keep = |query: &Query, id, node: &Node, score| {
                late += u64::from(!keep(order, query, id, node, score));
            };
            let stepped = if self.beaming {
                self.walk.step(store, index, keep)?
            } else {
                self.walk.step_beyond(store, index, due.unwrap_or(f32::INFINITY), keep)?
            };
            self.walk.stats.late += late;
            self.limited = self.max_hops.is_some_and(|max| self.walk.stats.hops >= max);
            match (stepped, self.beaming) {
                (true, _) => {}
                (false, true) => self.beaming = false,
                (false, false) if due.is_some() => return Ok(()),
                (false, false) => self.sweep = Some(1),
            }
        }
        if self.order.is_empty() && !self.limited {
            self.sweep(store, index)?;
        }
        if self.order.is_empty() {
            self.order.release_late();
        }
        Ok(())
    }

    /// Reads pages in order for live nodes that no link led to, to the end or until too many wait.
    fn sweep<S: PageStore>(&mut self, store: &S, index: &Index) -> Result<(), AccessError<S::Error>> {
        let g = &index.space.geometry;
        let end = store.block_count().map_err(AccessError::Store)?;
        while let Some(block) = self.sweep.filter(|&b| b < end).map(BlockNumber) {
            if self.order.len() >= self.max_waiting {
                self.order.release_late();
                break;
            }
            self.sweep = Some(block.0 + 1);
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
                    let in_time = keep(&mut self.order, query, id, &node, score);
                    self.walk.stats.late += u64::from(!in_time);
                }
            }
        }
        Ok(())
    }
}

/// Lets a node wait if it has rows; false if it is too late for its place.
fn keep(order: &mut Order, query: &Query, id: NodeId, node: &Node, score: f32) -> bool {
    let header = node.header();
    let bounds = || query.bounds(score, header.scale, header.error);
    header.state != State::Live || order.push(Found::new(bounds(), score, id, header))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::executor::Threads;
    use crate::build::{Builder, Parameters};
    use crate::layout::Geometry;
    use crate::random::SplitMix64;
    use crate::store::mem::MemStore;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn with_too_many_waiting_the_order_is_given_up_and_no_row_lost() {
        const ROWS: u32 = 500;
        let geometry = Geometry::new(8).unwrap();
        let mut random = SplitMix64::new(1);
        let mut vector = || -> Vec<f32> { (0..8).map(|_| (random.next_u64() >> 40) as f32).collect() };
        let parameters = Parameters::default();
        let mut builder = Builder::new(crate::Metric::L2, geometry, 1, &[], usize::MAX, parameters).unwrap();
        for block in 0..ROWS {
            builder.add(&vector(), HeapTid { block, offset: 1 }).unwrap();
        }
        let (cancel, mut store) = (AtomicBool::new(false), MemStore::new());
        builder.finish(&Threads::new(1, &cancel), &mut store, &mut |_| ()).unwrap();
        let index = Index::open(&store).unwrap();
        let mut search = Search::new(&index, &vector(), &Options::default()).unwrap();
        // Straight to the last pass, as if no link led anywhere.
        (search.sweep, search.max_waiting) = (Some(1), 50);
        let hits: Vec<Hit> = std::iter::from_fn(|| search.next(&store, &index).unwrap()).collect();
        let mut rows: Vec<u32> = hits.iter().map(|hit| hit.tid.block).collect();
        rows.sort_unstable();
        assert_eq!(rows, (0..ROWS).collect::<Vec<_>>());
        assert!(hits.iter().all(|hit| hit.late), "nothing was promised");
        assert!(hits[..50].is_sorted_by_key(|hit| hit.lower_bound), "as far as memory goes");
    }
}
