//! The surroundings of each node: all pairs within a distance, and the nearest neighbors of every node, in one pass.
//!
//! Vectors, links and rows are read into memory once, in the order of their pages. Then threads, which no longer need the storage, search around
//! each node along links. Such a search starts at its goal, so it finds the near nodes
//! after a few hops:
//!
//! 1. It scores the node's own neighbors. The nearest node that was scored is visited next, and its neighbors are scored.
//! 2. It ends when no node within the distance is left to visit, and none of the nearest [`PAIR_BEAM`] or [`BEAM`].
//!
//! A pair is found if either of the two finds the other, so a link in one direction is enough. It is also found if both are among the nearest
//! [`JOINED`] nodes of a third node, or among [`CROWDED`] nodes within the distance of it, because these are compared with each other (Dong,
//! Moses, Li 2011). Distances are those of the stored 8-bit vectors. A pair counts if the error bounds of both permit it. The caller decides by
//! the exact vectors.

use super::key::Key;
use super::rows::Rows;
use crate::build::executor::{Cancelled, Executor};
use crate::build::rows::RowSet;
use crate::index::{AccessError, Decoded, Index};
use crate::layout::node::{Node, State};
use crate::layout::{BlockNumber, HeapTid, Kind, NodeId, kind_in};
use crate::space::{Query, Space};
use crate::store::PageStore;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Nearest nodes that are visited whatever their distance, when neighbors are wanted.
pub const BEAM: usize = 24;
/// The same when pairs are wanted. In one run, of 300,000 rows of overlapping clusters (512 dimensions, half a pair a row), 24 found .982 and
/// 40 found .992, for a fifth more time. docs/library.md has other kinds of rows.
/// Links taken in both directions found .987 with 24, for a third more.
pub const PAIR_BEAM: usize = 40;
/// Nearest nodes of each that are compared with each other.
pub const JOINED: usize = 16;
/// As many of those within the distance, if there are more.
pub const CROWDED: usize = 64;
/// Pairs found twice are removed when there are so many.
const DISTINCT_AT: usize = 1 << 18;
/// Nodes that a worker takes at once.
const CHUNK: usize = 256;
/// No node.
const NONE: u32 = u32::MAX;

/// Why an index was not read into memory.
#[derive(Debug, thiserror::Error)]
pub enum LoadError<E: std::error::Error + 'static> {
    /// A page could not be read.
    #[error(transparent)]
    Access(#[from] AccessError<E>),
    /// It takes about so many bytes.
    #[error("the index takes {0} bytes of memory")]
    TooLarge(usize),
    /// The system refused memory.
    #[error("out of memory")]
    OutOfMemory,
}

/// Live nodes of an index, in memory.
pub struct Nodes {
    space: Space,
    set: RowSet,
    errors: Vec<f32>,
    /// By node, from where its neighbors begin.
    starts: Vec<u32>,
    neighbors: Vec<u32>,
    tids: Vec<HeapTid>,
    /// Further rows of some nodes.
    more: HashMap<u32, Vec<HeapTid>>,
    rows: usize,
}

/// What one search works with, kept from one to the next.
struct Scratch {
    /// By node: the number of the last search that met it.
    met: Vec<u32>,
    search: u32,
    open: BinaryHeap<Reverse<Key>>,
    best: BinaryHeap<Key>,
    /// What was met within the distance.
    inside: Vec<Key>,
    nearest: Vec<Key>,
}

/// Pairs that are found many times each.
struct Distinct {
    pairs: Vec<(u32, u32)>,
    /// So many that it pays to distinguish them.
    full: usize,
}

impl Distinct {
    fn new() -> Self {
        Self { pairs: Vec::new(), full: DISTINCT_AT }
    }

    fn push(&mut self, pair: (u32, u32)) {
        self.pairs.push(pair);
        if self.pairs.len() >= self.full {
            self.tell_apart();
            self.full = DISTINCT_AT.max(2 * self.pairs.len());
        }
    }

    fn tell_apart(&mut self) {
        self.pairs.sort_unstable();
        self.pairs.dedup();
    }
}

/// Pairs, or how many there would be.
#[derive(Debug, PartialEq, Eq)]
pub enum Pairs {
    /// Two nodes each, the smaller number first, ascending, each once.
    All(Vec<(u32, u32)>),
    /// More than were allowed: about so many.
    TooMany(u64),
}

/// Nearest neighbors of all nodes.
pub struct Nearest {
    /// How many each node has at most.
    pub k: usize,
    /// `[nodes, k]`: a neighbor and its squared distance, ascending; after the last, none.
    pub lists: Vec<(u32, f32)>,
}

/// No neighbor.
pub const NO_NEIGHBOR: (u32, f32) = (NONE, f32::INFINITY);

impl Nodes {
    /// Bytes that a node takes: vector, links, and the rest.
    #[must_use]
    pub fn node_bytes(index: &Index) -> usize {
        // Half of 32 links are to be expected; there is room for all.
        index.space.geometry.padded_dim() + index.space.geometry.key_bytes() + 32 * 4 + 48
    }

    /// Reads all live nodes. Nodes that come or go meanwhile may be missing.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load<S: PageStore>(
        store: &S,
        index: &Index,
        memory_bytes: usize,
    ) -> Result<Self, LoadError<S::Error>> {
        let g = &index.space.geometry;
        let pages = store.block_count().map_err(AccessError::Store)?;
        // By the pages at first: an index that is far too large is not read.
        let places = (pages as usize).saturating_mul(g.slots());
        let wanted = |nodes: usize| nodes.saturating_mul(Self::node_bytes(index)) + places * 4;
        if wanted(places / 2) > memory_bytes {
            return Err(LoadError::TooLarge(wanted(places)));
        }
        // From ids to numbers.
        let mut numbers: Vec<u32> = Vec::new();
        numbers.try_reserve_exact(places).map_err(|_| LoadError::OutOfMemory)?;
        numbers.resize(places, NONE);
        let mut nodes = Self {
            space: index.space.clone(),
            set: RowSet::new(g),
            errors: Vec::new(),
            starts: vec![0],
            neighbors: Vec::new(),
            tids: Vec::new(),
            more: HashMap::new(),
            rows: 0,
        };
        for block in (1..pages).map(BlockNumber) {
            store.check_interrupts().map_err(AccessError::Store)?;
            let mut further = Vec::new();
            {
                let page = store.read(block).map_err(AccessError::Store)?;
                if kind_in(&page, g.epoch()).at(block)? != Kind::Node {
                    continue;
                }
                for slot in 0..g.slots() {
                    let node = Node::read(&page, g, slot).at(block)?;
                    let Some(id) = g.node_id(block, slot) else { continue };
                    if node.header().state != State::Live {
                        continue;
                    }
                    let number = nodes.push(&node).ok_or(LoadError::OutOfMemory)?;
                    if let Some(place) = numbers.get_mut(id.0 as usize) {
                        *place = number;
                    }
                    if node.header().tids != 0 || !node.header().tid.is_valid() {
                        further.push((number, id, *node.header()));
                    }
                }
            }
            for (number, id, header) in further {
                let mut rows = Rows::new(id, &header);
                let mut tids = Vec::new();
                while let Some(tid) = rows.next(store, g)? {
                    tids.push(tid);
                }
                nodes.rows += tids.len().saturating_sub(1);
                if tids.len() > 1 || !header.tid.is_valid() {
                    nodes.more.insert(number, tids);
                }
            }
            let bytes = wanted(nodes.len()) + nodes.rows * 16;
            if bytes > memory_bytes {
                let share = f64::from(pages) / f64::from(block.0 + 1);
                return Err(LoadError::TooLarge((bytes as f64 * share) as usize));
            }
        }
        // Links lead to numbers from now on, those to nowhere are left out.
        let mut kept = 0;
        let mut start = 0;
        for node in 0..nodes.len() {
            let end = nodes.starts[node + 1] as usize;
            for at in start..end {
                let to = numbers.get(nodes.neighbors[at] as usize).copied().unwrap_or(NONE);
                if to != NONE {
                    nodes.neighbors[kept] = to;
                    kept += 1;
                }
            }
            start = end;
            nodes.starts[node + 1] = u32::try_from(kept).expect("32 links each");
        }
        nodes.neighbors.truncate(kept);
        Ok(nodes)
    }

    fn push(&mut self, node: &Node) -> Option<u32> {
        let number = u32::try_from(self.len()).ok()?;
        self.set.try_push(node.stored())?;
        self.errors.push(node.header().error);
        self.tids.push(node.header().tid);
        self.neighbors.try_reserve(node.header().degree).ok()?;
        self.neighbors.extend(node.ids().map(|id: NodeId| id.0));
        self.starts.push(u32::try_from(self.neighbors.len()).ok()?);
        self.rows += 1;
        Some(number)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.set.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rows of all of them.
    #[must_use]
    pub fn row_count(&self) -> usize {
        self.rows
    }

    /// Whether a node has several rows.
    #[must_use]
    pub fn has_copies(&self, node: u32) -> bool {
        self.more.get(&node).is_some_and(|rows| rows.len() > 1)
    }

    /// The rows of a node.
    #[must_use]
    pub fn rows(&self, node: u32) -> &[HeapTid] {
        match self.more.get(&node) {
            Some(rows) => rows,
            None => std::slice::from_ref(&self.tids[node as usize]),
        }
    }

    /// The live nodes that a node links to.
    #[must_use]
    pub fn links(&self, node: u32) -> &[u32] {
        let node = node as usize;
        &self.neighbors[self.starts[node] as usize..self.starts[node + 1] as usize]
    }

    fn scratch(&self) -> Scratch {
        Scratch {
            met: vec![0; self.len()],
            search: 0,
            open: BinaryHeap::new(),
            best: BinaryHeap::new(),
            inside: Vec::new(),
            nearest: Vec::new(),
        }
    }

    /// Searches around a node: calls `each` with others and their squared distances, each once, among them those within a
    /// squared distance (with `slack` for error bounds), and the nearest `beam`; until it says false.
    fn around(
        &self,
        node: u32,
        within: f32,
        beam: usize,
        scratch: &mut Scratch,
        mut each: impl FnMut(u32, f32) -> bool,
    ) {
        let Scratch { met, search, open, best, inside, .. } = scratch;
        if *search == u32::MAX {
            met.fill(0);
            *search = 0;
        }
        *search += 1;
        open.clear();
        best.clear();
        inside.clear();
        met[node as usize] = *search;
        let query = Query::stored(&self.space, self.space.decoded(self.set.stored(node)));
        let mut at = node;
        loop {
            for &to in self.links(at) {
                if std::mem::replace(&mut met[to as usize], *search) == *search {
                    continue;
                }
                let score = query.score(&self.space, self.set.stored(to)).max(0.0);
                if !each(to, score) {
                    return;
                }
                let key = Key::new(score, NodeId(to));
                if score <= within {
                    inside.push(key);
                }
                if best.len() < beam {
                    best.push(key);
                } else if best.peek().is_some_and(|worst| key < *worst) {
                    best.pop();
                    best.push(key);
                } else if score > within {
                    // Never visited.
                    continue;
                }
                open.push(Reverse(key));
            }
            let Some(Reverse(next)) = open.pop() else { return };
            let is_among_best = best.len() < beam || best.peek().is_some_and(|worst| next <= *worst);
            if next.score() > within && !is_among_best {
                return;
            }
            at = next.id().0;
        }
    }

    /// Compares the nearest nodes that the last search around a node met with each other: calls `each` with two and their squared
    /// distance. Of two that are linked one finds the other anyway.
    fn join(&self, scratch: &mut Scratch, mut each: impl FnMut(u32, u32, f32)) {
        let Scratch { best, inside, nearest, .. } = scratch;
        nearest.clear();
        let most = if inside.len() > JOINED {
            nearest.append(inside);
            CROWDED
        } else {
            nearest.extend(best.drain());
            JOINED
        };
        if nearest.len() > most {
            nearest.select_nth_unstable(most);
            nearest.truncate(most);
        }
        for (place, key) in nearest.iter().enumerate() {
            let a = key.id().0;
            let others = nearest[place + 1..].iter().map(|key| key.id().0);
            let mut query = None;
            for b in others {
                if self.links(a).contains(&b) || self.links(b).contains(&a) {
                    continue;
                }
                let query = query.get_or_insert_with(|| {
                    Query::stored(&self.space, self.space.decoded(self.set.stored(a)))
                });
                each(a, b, query.score(&self.space, self.set.stored(b)).max(0.0));
            }
        }
    }

    /// Largest error bound.
    fn most_error(&self) -> f32 {
        self.errors.iter().copied().filter(|error| error.is_finite()).fold(0.0, f32::max)
    }

    /// Pairs of nodes that may have rows within an L2 distance of each other, unless there are more than `most`. Rows of one
    /// node are not among them. `done` counts the nodes that were searched around.
    ///
    /// # Errors
    /// [`Cancelled`].
    pub fn pairs(
        &self,
        distance: f64,
        most: usize,
        executor: &dyn Executor,
        done: &AtomicUsize,
    ) -> Result<Pairs, Cancelled> {
        // What is visited: within the distance and what errors usually are.
        let usual = self.errors.iter().copied().filter(|error| error.is_finite()).sum::<f32>()
            / self.len().max(1) as f32;
        #[allow(clippy::cast_possible_truncation, reason = "a distance")]
        let within = (distance as f32 + 2.0 * usual).powi(2);
        let reach = distance as f32 + 2.0 * self.most_error();
        let limit = 2 * most as u64;
        let is_pair = |a: u32, b: u32, squared: f32| {
            let slack = f64::from(self.errors[a as usize]) + f64::from(self.errors[b as usize]);
            f64::from(squared.sqrt()) <= distance + slack + 1e-5
        };
        let (next, found, stopped) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicBool::new(false));
        let all = Mutex::new(Vec::new());
        executor.run(&|| {
            let (mut scratch, mut mine) = (self.scratch(), Vec::new());
            let mut joined = Distinct::new();
            while !stopped.load(Ordering::Relaxed) {
                let start = next.fetch_add(CHUNK, Ordering::Relaxed);
                if start >= self.len() {
                    break;
                }
                for node in start..self.len().min(start + CHUNK) {
                    if executor.cancelled() || found.load(Ordering::Relaxed) > limit {
                        stopped.store(true, Ordering::Relaxed);
                        break;
                    }
                    let number = node as u32;
                    let mut here = 0u64;
                    self.around(number, within, PAIR_BEAM, &mut scratch, |other, squared| {
                        if squared.sqrt() <= reach && is_pair(number, other, squared) {
                            mine.push((number.min(other), number.max(other)));
                            here += 1;
                        }
                        here <= limit
                    });
                    if here <= limit {
                        self.join(&mut scratch, |a, b, squared| {
                            if squared.sqrt() <= reach && is_pair(a, b, squared) {
                                joined.push((a.min(b), a.max(b)));
                            }
                        });
                    }
                    // What is found so is found from both sides as well, but for few.
                    if joined.pairs.len() as u64 > limit {
                        found.fetch_add(limit + 1, Ordering::Relaxed);
                    }
                    found.fetch_add(here, Ordering::Relaxed);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            }
            joined.tell_apart();
            let mut all = all.lock().expect("workers do not panic");
            all.append(&mut mine);
            all.append(&mut joined.pairs);
        });
        executor.check()?;
        let found = found.into_inner();
        if found > limit {
            // By the share of nodes that were looked at, each pair being found from both sides.
            let searched = done.load(Ordering::Relaxed).max(1) as f64;
            let estimate = found as f64 * self.len() as f64 / searched / 2.0;
            return Ok(Pairs::TooMany(estimate as u64));
        }
        let mut all = all.into_inner().expect("workers do not panic");
        all.sort_unstable();
        all.dedup();
        Ok(Pairs::All(all))
    }

    /// The `k` nearest nodes of each.
    ///
    /// # Errors
    /// [`Cancelled`].
    pub fn nearest(
        &self,
        k: usize,
        executor: &dyn Executor,
        done: &AtomicUsize,
    ) -> Result<Nearest, Cancelled> {
        let beam = BEAM.max(k + k / 2);
        let lists = Mutex::new(vec![NO_NEIGHBOR; self.len() * k]);
        let next = AtomicUsize::new(0);
        executor.run(&|| {
            let mut scratch = self.scratch();
            let mut mine: Vec<(u32, f32)> = Vec::new();
            while !executor.cancelled() {
                let start = next.fetch_add(CHUNK, Ordering::Relaxed);
                if start >= self.len() {
                    break;
                }
                let end = self.len().min(start + CHUNK);
                mine.clear();
                for node in start..end {
                    if executor.cancelled() {
                        break;
                    }
                    let from = mine.len();
                    self.around(node as u32, 0.0, beam, &mut scratch, |other, squared| {
                        mine.push((other, squared));
                        true
                    });
                    let order = |x: &(u32, f32), y: &(u32, f32)| x.1.total_cmp(&y.1).then(x.0.cmp(&y.0));
                    if mine.len() - from > k {
                        mine[from..].select_nth_unstable_by(k, order);
                        mine.truncate(from + k);
                    }
                    mine[from..].sort_unstable_by(order);
                    mine.resize(from + k, NO_NEIGHBOR);
                    done.fetch_add(1, Ordering::Relaxed);
                }
                lists.lock().expect("workers do not panic")[start * k..][..mine.len()].copy_from_slice(&mine);
            }
        });
        executor.check()?;
        Ok(Nearest { k, lists: lists.into_inner().expect("workers do not panic") })
    }

    /// Squared L2 distance of two nodes.
    #[must_use]
    pub fn distance_squared(&self, a: u32, b: u32) -> f32 {
        self.space.between(&self.space.decoded(self.set.stored(a)), &self.space.decoded(self.set.stored(b)))
    }
}
