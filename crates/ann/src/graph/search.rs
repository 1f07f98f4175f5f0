//! Search by distance: returns rows one by one, for as long as the caller asks.
//!
//! The walk visits nodes by ascending estimate. It returns the `r`-th row when `r + r / 2 + lookahead` visited nodes score
//! better than the best candidate that was not visited. Scores are exact (to eight bits a dimension). So nodes whose estimates
//! were too small do not count, and the walk looks further if estimates are noisy.

use super::filtered::{LEAST_LOOKAHEAD, LEAST_SHARE, Wanted};
use super::order::{Found, Order};
use super::rows::Rows;
use super::sweep::Sweep;
use super::walk::{Stats, Walk};
use crate::filter::Filter;
use crate::index::{AccessError, Index};
use crate::layout::node::{Node, State};
use crate::layout::{Geometry, HeapTid, NodeId};
use crate::space::{Query, Space, VectorError};
use crate::store::PageStore;

/// Least lookahead.
pub const MIN_LOOKAHEAD: usize = 10;
/// Lookahead unless a setting says otherwise: recall@10 of .95 and more on the benchmark's sets.
pub const DEFAULT_LOOKAHEAD: usize = 60;
/// An index with no more places for nodes than this is read through: that is exact, and costs no more than to walk. A thousand
/// nodes always fit, beside pages of other kinds and those of the life before a training, which held fewer nodes.
const FEW_PLACES: usize = 1600;
/// A walk that has visited so many nodes for each page of the index, in fractions, costs more than to read the rest.
const MOST_HOPS: u64 = 4;
/// Fewest hops before that, where pages are few.
const FEWEST_HOPS: u64 = 200;

/// Whether every search of an index of so many blocks reads all of them, as [`Options::exact`] asks for.
#[must_use]
pub fn is_read_through(geometry: &Geometry, blocks: u32) -> bool {
    (blocks as usize).saturating_mul(geometry.slots()) <= FEW_PLACES
}

/// So many rows that were returned widen the lookahead by one. What the first ten rows need is too little for the hundredth: with 10 on data
/// where that finds .99 of ten, .81 to .97 of a hundred are found, and .95 to .99 with this.
const ROWS_PER_LOOKAHEAD: usize = 2;

/// How to search.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many visited nodes more than rows must score better than any candidate before the first row is returned; later
    /// rows want one more for each two before them.
    pub lookahead: usize,
    /// Name the next pages to the store ahead of time.
    pub prefetch: bool,
    /// Read all pages before the first row, and give every row at its place: what a search costs that goes on to
    /// the last row anyway.
    pub exact: bool,
    /// Rows farther than this are not wanted: where bounds have passed it, there are none but late ones.
    pub within: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { lookahead: DEFAULT_LOOKAHEAD, prefetch: false, exact: false, within: f64::INFINITY }
    }
}

/// Nodes that a search visits for so many rows, as the planner should expect it: measured are 1.8 for each node that it
/// wants to know for queries like rows, and twice as many for text queries.
#[must_use]
pub fn expected_hops(lookahead: f64, rows: f64) -> f64 {
    2.0 * (lookahead + rows.max(0.0))
}

/// How many times as many nodes a search visits whose rows pass a filter on key columns as one without, where such a share of rows
/// passes, scattered; where the filter goes with the vectors, it is less. Measured with the rules of `filtered.rs`. Where
/// one row in a hundred passes, or fewer, text queries visit half as many again as those like rows: these are priced, as the
/// alternative there takes about as long and is exact.
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "a small number")]
pub fn filtered_hops(share: f64, lookahead: f64) -> f64 {
    let share = share.clamp(1e-6, 1.0);
    let ahead = (LEAST_LOOKAHEAD as f64 / lookahead.max(1.0)).clamp(LEAST_SHARE, 1.0);
    let rare = 1.0 + 0.5 * (0.01 / share).min(1.0);
    (1.0 + 0.55 * (1.0 / share - 1.0)).min(6.0).max((0.22 + 0.44 * ahead) / share * rare)
}

/// Hops after which a search reads all of an index of so many blocks.
#[must_use]
pub fn most_hops(blocks: u32) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "below 2^30")]
    let hops = hops_before_sweep(blocks) as f64;
    hops
}

fn hops_before_sweep(blocks: u32) -> u64 {
    FEWEST_HOPS.max(u64::from(blocks) / MOST_HOPS)
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
    /// It was found when rows with larger bounds had been returned. Bounds do not descend before the first
    /// such row, and there is nothing else after it.
    pub late: bool,
}

impl Hit {
    /// What whoever computes the row's distance himself may be told that it is not below. Where arithmetic in
    /// single precision may arrive at anything, the lower bound tells the row's place by geometry alone.
    #[must_use]
    pub fn claimed_bound(&self) -> f64 {
        if self.upper_bound == f64::INFINITY { f64::NEG_INFINITY } else { self.lower_bound }
    }
}

/// What a search does to find more.
#[derive(Debug)]
enum Phase {
    /// Walks the graph.
    Walking,
    /// Reads all pages.
    Sweeping(Sweep),
    /// Gives what has waited for the end.
    Ending,
}

/// A search under way. It holds no lock between calls.
pub struct Search {
    walk: Walk,
    order: Order,
    rows: Option<(Rows, Hit)>,
    lookahead: usize,
    /// Nodes returned.
    given: usize,
    /// The largest upper bound returned.
    passed: f64,
    phase: Phase,
    within: f64,
    /// Hops after which to sweep; known once something was read.
    most_hops: Option<u64>,
    walks_only: bool,
    is_cut_short: bool,
}

impl Search {
    /// Prepares a search; nothing is read yet.
    ///
    /// # Errors
    /// [`VectorError`] if the vector does not fit the index.
    pub fn new(index: &Index, vector: &[f32], options: &Options) -> Result<Self, VectorError> {
        Ok(Self::with_query(index, Query::new(&index.space, vector)?, None, options))
    }

    /// As [`Search::new`], for rows whose keys pass a filter.
    ///
    /// # Errors
    /// As [`Search::new`].
    pub fn filtered(
        index: &Index,
        vector: &[f32],
        filter: Filter,
        options: &Options,
    ) -> Result<Self, VectorError> {
        let filter = (!filter.is_empty()).then_some(filter);
        Ok(Self::with_query(index, Query::new(&index.space, vector)?, filter, options))
    }

    /// As [`Search::new`], for a query that is prepared already.
    pub(super) fn with_query(index: &Index, query: Query, filter: Option<Filter>, options: &Options) -> Self {
        let lookahead = options.lookahead.max(MIN_LOOKAHEAD);
        Self {
            walk: Walk::new(index, query, lookahead, filter, options.prefetch),
            order: Order::default(),
            rows: None,
            lookahead,
            given: 0,
            passed: f64::NEG_INFINITY,
            phase: Phase::Walking,
            within: options.within,
            most_hops: options.exact.then_some(0),
            walks_only: false,
            is_cut_short: false,
        }
    }

    /// The search ends where it would read all pages, and [`Search::is_cut_short`] tells so: whoever measures searches need not wait for
    /// one that finds everything.
    pub(super) fn walking_only(self) -> Self {
        Self { walks_only: true, ..self }
    }

    /// Whether the search has ended before it read all pages.
    pub(super) fn is_cut_short(&self) -> bool {
        self.is_cut_short
    }

    /// What it cost so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.walk.stats
    }

    /// The next row, `None` after the last. Every row that the index held when the search began comes
    /// out exactly once. Bounds never descend, until [`Hit::late`] says so.
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
            if self.is_cut_short {
                return Ok(None);
            }
            let Some(found) = self.order.pop() else {
                return Ok(None);
            };
            let is_beyond = found.lower_bound > self.within && found.upper_bound < f64::INFINITY;
            if is_beyond && !matches!(self.phase, Phase::Ending) {
                self.order.forget_due();
                self.order.release_late();
                self.phase = Phase::Ending;
                continue;
            }
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

    /// Goes on until the next row can be returned, or there is nothing more.
    fn settle<S: PageStore>(&mut self, store: &S, index: &Index) -> Result<(), AccessError<S::Error>> {
        while matches!(self.phase, Phase::Walking) {
            if self.walk.stats.hops >= self.most_hops(store, index)? {
                self.phase = Phase::Sweeping(Sweep::default());
                break;
            }
            let (order, mut late) = (&mut self.order, 0);
            let due = order.peek().is_some();
            let lookahead = self.lookahead + self.given / ROWS_PER_LOOKAHEAD;
            let wanted = Wanted { rows: self.given + 1, lookahead, due };
            let stepped = self.walk.step(store, index, wanted, |query, id, node, score| {
                if let Some(found) = found(&index.space, query, id, node, score) {
                    late += u64::from(!order.push(found));
                }
            })?;
            self.walk.stats.late += late;
            match stepped {
                true => {}
                false if due => return Ok(()),
                false => self.phase = Phase::Sweeping(Sweep::default()),
            }
        }
        if self.walks_only && matches!(self.phase, Phase::Sweeping(_)) {
            self.is_cut_short = true;
            return Ok(());
        }
        // What the first pass finds may come before what waits already.
        if let Phase::Sweeping(sweep) = &mut self.phase
            && (self.order.is_empty() || !sweep.begun())
        {
            let late = sweep.pass(store, index, &mut self.walk, &mut self.order)?;
            self.walk.stats.late += late;
        }
        if self.order.is_empty() {
            self.order.release_late();
        }
        Ok(())
    }

    /// Hops after which reading all pages costs less than to go on.
    fn most_hops<S: PageStore>(&mut self, store: &S, index: &Index) -> Result<u64, AccessError<S::Error>> {
        if let Some(most) = self.most_hops {
            return Ok(most);
        }
        let pages = store.block_count()?;
        let is_small = is_read_through(&index.space.geometry, pages);
        let most = if is_small { 0 } else { hops_before_sweep(pages) };
        self.most_hops = Some(most);
        Ok(most)
    }
}

/// A node as it waits for its turn; `None` if it has no rows.
pub(super) fn found(space: &Space, query: &Query, id: NodeId, node: &Node, score: f32) -> Option<Found> {
    let header = node.header();
    let bounds = || query.bounds(space, node.stored(), score, header.error);
    (header.state == State::Live).then(|| Found::new(bounds(), score, id, header))
}
