//! Inserting one row.
//!
//! 1. Search for the vector itself, and keep the vectors that the search visits.
//! 2. If one of them is equal, add the row to its node (`share`). Done.
//! 3. Prune the visited nodes to the new node's neighbors. If norms are known, nodes with the highest inner products with the row come first;
//!    a second search finds them.
//! 4. In one change: write the node, and a protected edge to it from the nearest neighbor that has room. After a
//!    crash at this point the row can be found.
//! 5. In one change for each other neighbor: an edge back, if the neighbor's page shows that it is useful. A long row is also useful to other
//!    nodes that were visited.
//! 6. From time to time, make the node an entry, so that the entry table stays a fair sample while the index grows. Always make it an entry
//!    if it opens a region without other rows, so that later rows of the region are found, or if it is longer than most entries and
//!    norms matter.

use super::edges::{self, MAX_PROTECTED, Wish};
use super::filtered::Wanted;
use super::prune::{ALPHA, Pruner};
use super::share;
use super::walk::Walk;
use crate::build::graph::entry_target;
use crate::build::products;
use crate::filter::key_bytes;
use crate::index::{AccessError, Decoded, Index};
use crate::layout;
use crate::layout::meta::Meta;
use crate::layout::node::{self, Header, Node, NodeMut, State};
use crate::layout::{BlockNumber, HeapTid, Kind, MAX_DEGREE, NodeId, Page, entry, kind_in};
use crate::quantize::residual::{self, Encoder};
use crate::quantize::{Local, Stored};
use crate::random::SplitMix64;
use crate::space::{Quantized, Query, VectorError};
use crate::store::{Change, PageStore};

/// Nodes nearer than any candidate that the search for neighbors wants to know.
pub const EF_INSERT: usize = 64;
/// The same for rows with high inner products.
const EF_PRODUCTS: usize = 32;
/// Nearest neighbors that take the new node even if it seems occluded.
const SURE_EDGES: usize = 4;
/// A row opens a region if the nearest row is so many times as far from it as from the `COMPANY` nearest of its own
/// neighbors, in squared distances.
const REMOTE: f32 = 1.5;
/// See `REMOTE`.
const COMPANY: usize = 4;
/// Such rows become entries until there are so many times as many as otherwise.
const MOST_ENTRIES: usize = 2;

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It has a node of its own.
    Node(NodeId),
    /// It shares the node of an equal vector.
    Shared(NodeId),
    /// A vector of zeros under cosine: not indexed.
    NoDirection,
}

/// Why a row was not inserted.
#[derive(Debug, thiserror::Error)]
pub enum InsertError<E: std::error::Error + 'static> {
    /// The vector does not fit the index.
    #[error(transparent)]
    Vector(#[from] VectorError),
    /// Pages could not be read or changed.
    #[error(transparent)]
    Access(#[from] AccessError<E>),
}

/// A node met while searching.
#[derive(Clone)]
pub(super) struct Met {
    pub id: NodeId,
    pub distance: f32,
    pub header: Header,
    pub codes: Vec<i8>,
    pub keys: Vec<u8>,
    /// A row whose product with it is higher is of use to it, where norms are known.
    floor: Option<f32>,
}

impl Met {
    fn new(id: NodeId, node: &Node, distance: f32) -> Self {
        let floor = edges::products_of(node).map(|(_, floor)| floor);
        let (codes, keys) = (node.vector().to_vec(), node.keys().to_vec());
        Self { id, distance, header: *node.header(), codes, keys, floor }
    }

    pub fn stored(&self) -> Stored<'_> {
        self.header.stored(&self.codes, &self.keys)
    }
}

/// Inserts a row. `random` decides which nodes become entries.
///
/// # Errors
/// [`InsertError`].
pub fn insert<S: PageStore>(
    store: &S,
    index: &mut Index,
    vector: &[f32],
    tid: HeapTid,
    random: &mut SplitMix64,
) -> Result<Inserted, InsertError<S::Error>> {
    insert_with_keys(store, index, vector, &[], tid, random)
}

/// Inserts a row of an index with key columns: a key for each.
///
/// # Errors
/// [`InsertError`].
pub fn insert_with_keys<S: PageStore>(
    store: &S,
    index: &mut Index,
    vector: &[f32],
    keys: &[u64],
    tid: HeapTid,
    random: &mut SplitMix64,
) -> Result<Inserted, InsertError<S::Error>> {
    // First of all: the index may have been trained since, and have another basis.
    index.refresh_if_stale(store)?;
    let Some(mut x) = index.space.quantize(vector)? else {
        return Ok(Inserted::NoDirection);
    };
    x.keys = key_bytes(keys);
    let (stated, given) = (index.space.geometry.key_bytes() as u64, x.keys.len() as u64);
    layout::check("bytes of keys", stated, given, given).at(BlockNumber(0))?;
    let query = Query::stored(&index.space, index.space.decoded(x.stored()));
    loop {
        let Neighborhood { met, width } = neighborhood(store, index, &query)?;
        for twin in met.iter().filter(|m| x.is_same(m.stored())) {
            if share::add_row(store, index, twin.id, twin.header.generation, x.error, tid)? {
                return Ok(Inserted::Shared(twin.id));
            }
        }
        let high = highest_products(store, index, &x, &met)?;
        let around: Vec<&Met> = met.iter().filter(|m| high.iter().all(|other| other.id != m.id)).collect();
        let distances: Vec<f32> = around.iter().map(|m| m.distance).collect();
        let near = local(index, &query, &around);
        let mut pruner = Pruner::default();
        let chosen = pruner.select(&distances, ALPHA, MAX_DEGREE - high.len(), true, |a, others, out| {
            near.distances(index.space.kernels, a, others, out);
        });
        // Nearest first among all that were met, as the parent need not be a neighbor.
        let has_room = |m: &&Met| m.header.protected.count_ones() < MAX_PROTECTED;
        let parent = met.iter().find(has_room).or(met.first());
        let chosen: Vec<&Met> = chosen.iter().map(|&i| around[i as usize]).collect();
        let neighbors: Vec<&Met> = chosen.iter().copied().chain(&high).collect();
        let Some(id) = add_node(store, index, &x, &query, tid, &neighbors, parent)? else {
            index.refresh(store)?;
            continue;
        };
        for (rank, neighbor) in chosen.iter().enumerate().filter(|(_, m)| Some(m.id) != parent.map(|p| p.id))
        {
            let wish = if rank < SURE_EDGES { Wish::Needed } else { Wish::IfUseful };
            add_edge(store, index, neighbor.id, neighbor.header.generation, id, &x, &query, wish)?;
        }
        let is_high = |m: &&Met| {
            m.floor.is_some_and(|floor| products::product(x.bias, m.distance) > floor)
                && parent.is_none_or(|parent| parent.id != m.id)
                && chosen.iter().all(|other| other.id != m.id)
        };
        for m in met.iter().filter(is_high).take(MAX_DEGREE) {
            add_edge(store, index, m.id, m.header.generation, id, &x, &query, Wish::IfUseful)?;
        }
        if parent.is_some() {
            let is_remote = met.first().is_some_and(|nearest| nearest.distance > REMOTE * width);
            maybe_add_entry(store, index, &x, id, is_remote || index.is_heavy(x.bias), random)?;
        }
        return Ok(Inserted::Node(id));
    }
}

/// The vectors of nodes relative to a query.
fn local(index: &Index, query: &Query, met: &[&Met]) -> Local {
    let space = &index.space;
    let (mut near, mut difference) = (Local::default(), vec![0.0; space.geometry.padded_dim()]);
    near.clear(difference.len());
    for m in met {
        let largest = space.decode_from(m.stored(), query.turned(), &mut difference);
        near.push(space.kernels, &difference, largest);
    }
    near
}

/// What lies round a query.
pub(super) struct Neighborhood {
    /// Live nodes, nearest first.
    pub met: Vec<Met>,
    /// Squared distance within which the nearest has `COMPANY` neighbors.
    pub width: f32,
}

/// Live nodes round a query.
pub(super) fn neighborhood<S: PageStore>(
    store: &S,
    index: &Index,
    query: &Query,
) -> Result<Neighborhood, AccessError<S::Error>> {
    let mut met = Vec::with_capacity(EF_INSERT * 2);
    let (mut nearest, mut width) = (f32::INFINITY, f32::INFINITY);
    let mut walk = Walk::nearest(index, query.clone(), EF_INSERT);
    let wanted = Wanted { rows: EF_INSERT, lookahead: 0, due: true };
    while walk.step(store, index, wanted, |_, id, node: &Node, score| {
        if node.header().state == State::Live {
            let distance = score.max(0.0);
            if distance < nearest {
                (nearest, width) = (distance, reach_of_company(node));
            }
            met.push(Met::new(id, node, distance));
        }
    })? {}
    met.sort_by(|a, b| a.distance.total_cmp(&b.distance));
    Ok(Neighborhood { met, width })
}

/// Live nodes that have the highest inner products with a row, where norms are known: half of them of all, half of those around it. Their
/// distances are negative products with the row's direction.
fn highest_products<S: PageStore>(
    store: &S,
    index: &Index,
    x: &Quantized,
    around: &[Met],
) -> Result<Vec<Met>, AccessError<S::Error>> {
    let mut high = Vec::new();
    if !index.space.is_weighted() {
        return Ok(high);
    }
    let Some(query) = Query::of_stored(&index.space, &index.space.decoded(x.stored())) else {
        return Ok(high);
    };
    let mut walk = Walk::nearest(index, query, EF_PRODUCTS);
    let wanted = Wanted { rows: EF_PRODUCTS, lookahead: 0, due: true };
    while walk.step(store, index, wanted, |_, id, node: &Node, score| {
        if node.header().state == State::Live && score < 0.0 {
            high.push(Met::new(id, node, score));
        }
    })? {}
    high.sort_by(|a, b| a.distance.total_cmp(&b.distance));
    high.truncate(products::MOST / 2);
    let product = |m: &Met| -products::product(m.header.bias, m.distance);
    let mut others: Vec<Met> = around
        .iter()
        .filter(|m| product(m) < 0.0 && high.iter().all(|other| other.id != m.id))
        .map(|m| Met { distance: product(m), ..m.clone() })
        .collect();
    others.sort_by(|a, b| a.distance.total_cmp(&b.distance));
    others.truncate(products::MOST - high.len());
    high.extend(others);
    Ok(high)
}

/// Squared distance within which a node has `COMPANY` neighbors; infinite if it has fewer.
fn reach_of_company(node: &Node) -> f32 {
    let mut nearest = [f32::INFINITY; COMPANY];
    for i in 0..node.header().degree {
        let mut distance = node.edge(i).distance_squared;
        for kept in &mut nearest {
            if distance < *kept {
                std::mem::swap(kept, &mut distance);
            }
        }
    }
    nearest[COMPANY - 1]
}

/// Writes the new node together with the edge that leads to it, or with its entry if there is nobody to
/// link from. `None` if another session was faster; search again then.
fn add_node<S: PageStore>(
    store: &S,
    index: &Index,
    x: &Quantized,
    query: &Query,
    tid: HeapTid,
    neighbors: &[&Met],
    parent: Option<&Met>,
) -> Result<Option<NodeId>, AccessError<S::Error>> {
    let g = index.space.geometry;
    let parent_block = parent.map(|p| g.block_of(p.id));
    let hint = store.free_block();
    let mut change = store.change()?;
    // Locks in ascending order; an entry goes into block 0 and a page after it first.
    let mut meta = None;
    if parent.is_none() {
        let page = change.page(BlockNumber(0))?;
        let now = Meta::decode(page).at(BlockNumber(0))?;
        if !index.is_current(&now) {
            return Ok(None);
        }
        // Entry pages were read when the index was opened; the last may lie after the hint.
        meta = Some(now);
    }
    let last_entry = meta.as_ref().map(|m| BlockNumber(m.entry_last)).filter(|b| b.0 != 0);
    let mut blocks: Vec<BlockNumber> = parent_block.into_iter().chain(hint).chain(last_entry).collect();
    blocks.sort_unstable();
    blocks.dedup();
    for &block in &blocks {
        change.page(block)?;
    }

    let mut place = None;
    if let Some(block) = hint {
        let page = change.page(block)?;
        place = free_slot(page, index, block)?.map(|slot| (block, slot));
        if place.is_none() {
            drop(change);
            store.record_free(block, false);
            return Ok(None);
        }
    }
    let (block, slot) = match place {
        Some(place) => place,
        None => {
            let block = change.extend()?;
            node::init(change.page(block)?, &g);
            (block, 0)
        }
    };
    let id = g.node_id(block, slot).ok_or(AccessError::Full)?;
    let page = change.page(block)?;
    write_node(page, index, slot, id, x, tid, neighbors).at(block)?;
    let full = free_slot(page, index, block)?.is_none();

    if let Some(parent) = parent {
        let at = g.block_of(parent.id);
        let page = change.page(at)?;
        let mut node = NodeMut::open(page, &g, g.slot_of(parent.id)).at(at)?;
        let header = *node.as_node().header();
        if header.state != State::Live || header.generation != parent.header.generation {
            return Ok(None);
        }
        if !edges::add(index, &mut node, id, x.stored(), query, Wish::Protected) {
            return Ok(None);
        }
    } else if let Some(mut meta) = meta {
        append_entry(&mut change, index, &mut meta, x, id)?;
    }
    change.commit()?;
    store.record_free(block, !full);
    Ok(Some(id))
}

/// A free slot of a page; a page of zeros becomes a node page.
fn free_slot<E: std::error::Error + 'static>(
    page: &mut Page,
    index: &Index,
    block: BlockNumber,
) -> Result<Option<usize>, AccessError<E>> {
    let g = &index.space.geometry;
    match kind_in(page, g.epoch()).at(block)? {
        Kind::New => node::init(page, g),
        Kind::Node => {}
        Kind::Meta | Kind::Entry | Kind::Tids | Kind::Vectors | Kind::Bounds | Kind::Retired => {
            return Ok(None);
        }
    }
    for slot in 0..g.slots() {
        let state = Node::read(page, g, slot).at(block)?.header().state;
        if state == State::Free && g.node_id(block, slot).is_some() {
            return Ok(Some(slot));
        }
    }
    Ok(None)
}

fn write_node(
    page: &mut Page,
    index: &Index,
    slot: usize,
    id: NodeId,
    x: &Quantized,
    tid: HeapTid,
    neighbors: &[&Met],
) -> Result<(), crate::layout::PageError> {
    let space = &index.space;
    let mut node = NodeMut::open(page, &space.geometry, slot)?;
    let before = *node.as_node().header();
    // A neighbor list may still name the slot's former node: nobody links to itself.
    let neighbors: Vec<&&Met> = neighbors.iter().filter(|m| m.id != id).collect();
    node.set_header(&Header {
        tid,
        degree: neighbors.len(),
        state: State::Live,
        lead: x.lead,
        trail: x.trail,
        bias: x.bias,
        error: x.error,
        version: before.version.wrapping_add(1),
        protected: 0,
        tids: 0,
        generation: before.generation.wrapping_add(1),
        reference: x.reference,
    });
    node.set_vector(&x.codes);
    node.set_keys(&x.keys);
    let mut bits = vec![0u8; space.geometry.code_bytes()];
    let mut encoder = Encoder::new(space, x.stored());
    for (i, m) in neighbors.into_iter().enumerate() {
        let edge = encoder.edge(m.stored(), m.id, &mut bits);
        node.set_edge(i, &edge, &bits);
    }
    Ok(())
}

/// Adds an edge to one node, if it is still the node that was met.
#[allow(clippy::too_many_arguments, reason = "the edge's two ends")]
pub(super) fn add_edge<S: PageStore>(
    store: &S,
    index: &Index,
    from: NodeId,
    generation: u16,
    to: NodeId,
    x: &Quantized,
    query: &Query,
    wish: Wish,
) -> Result<bool, AccessError<S::Error>> {
    if from == to {
        return Ok(false);
    }
    store.check_interrupts()?;
    let g = &index.space.geometry;
    let block = g.block_of(from);
    let mut change = store.change()?;
    let page = change.page(block)?;
    let mut node = NodeMut::open(page, g, g.slot_of(from)).at(block)?;
    let header = *node.as_node().header();
    let same = header.state == State::Live && header.generation == generation;
    let added = same && edges::add(index, &mut node, to, x.stored(), query, wish);
    if added {
        change.commit()?;
    }
    Ok(added)
}

/// Makes the node an entry if the table is too small for the index or the node is wanted, or else with the probability
/// that keeps the table a fair sample. What is known of the table may be a little out of date.
fn maybe_add_entry<S: PageStore>(
    store: &S,
    index: &mut Index,
    x: &Quantized,
    id: NodeId,
    is_wanted: bool,
    random: &mut SplitMix64,
) -> Result<(), AccessError<S::Error>> {
    let g = index.space.geometry;
    // Pages tell the number of rows closely enough.
    let rows = store.block_count()? as usize * g.slots();
    let target = entry_target(rows);
    let count = index.meta.entry_count as usize;
    let grows = count < if is_wanted { MOST_ENTRIES * target } else { target };
    let hole = index.entry_hole().filter(|_| grows);
    let replaced = match hole {
        None if grows => None,
        None if random.below(rows) < target => Some(random.below(count)),
        None => return Ok(()),
        hole => hole,
    };
    match replaced.and_then(|i| index.entry_place(i)) {
        Some(place) => replace_entry(store, index, x, id, place)?,
        None => {
            let zero = BlockNumber(0);
            let mut change = store.change()?;
            let page = change.page(zero)?;
            let mut meta = Meta::decode(page).at(zero)?;
            append_entry(&mut change, index, &mut meta, x, id)?;
            change.commit()?;
        }
    }
    if hole.is_some() { index.refresh(store) } else { Ok(()) }
}

/// Puts a node in the place of an entry, and links it to the former one, which may have no other link. Does nothing
/// if the former one is about to be vacuumed away.
fn replace_entry<S: PageStore>(
    store: &S,
    index: &Index,
    x: &Quantized,
    id: NodeId,
    (block, place): (BlockNumber, usize),
) -> Result<(), AccessError<S::Error>> {
    let (g, zero, own) = (index.space.geometry, BlockNumber(0), index.space.geometry.block_of(id));
    let former = {
        let page = store.read(block)?;
        let (_, used) = entry::header(&page, &g).at(block)?;
        if place >= used {
            return Ok(());
        }
        entry::get(&page, &g, place).id
    };
    let (mut codes, mut keys, mut header) = (Vec::new(), Vec::new(), Header::FREE);
    if former != NodeId::NONE {
        let at = g.block_of(former);
        let page = store.read(at)?;
        let node = Node::read(&page, &g, g.slot_of(former)).at(at)?;
        if node.header().state != State::Live {
            return Ok(());
        }
        header = *node.header();
        codes.extend_from_slice(node.vector());
        keys.extend_from_slice(node.keys());
    }
    let mut change = store.change()?;
    let mut blocks = [zero, block, own];
    blocks.sort_unstable();
    for block in blocks {
        change.page(block)?;
    }
    let page = change.page(block)?;
    entry::header(page, &g).at(block)?;
    if entry::get(page, &g, place).id != former {
        return Ok(()); // Somebody was faster; the sample does not need this very node.
    }
    let (e, bits) = encode_entry(index, x, id);
    entry::set(page, &g, place, &e, &bits);
    if former != NodeId::NONE {
        let page = change.page(own)?;
        let mut node = NodeMut::open(page, &g, g.slot_of(id)).at(own)?;
        let vector = header.stored(&codes, &keys);
        let query = Query::stored(&index.space, index.space.decoded(vector));
        let is_live = node.as_node().header().state == State::Live;
        if !is_live || !edges::add(index, &mut node, former, vector, &query, Wish::Protected) {
            return Ok(());
        }
    }
    let mut meta = Meta::decode(change.page(zero)?).at(zero)?;
    meta.entry_generation = meta.entry_generation.wrapping_add(1);
    meta.encode_links(change.page(zero)?);
    Ok(change.commit()?)
}

fn encode_entry(index: &Index, x: &Quantized, id: NodeId) -> (entry::Entry, Vec<u8>) {
    let space = &index.space;
    let mut bits = vec![0u8; space.geometry.code_bytes()];
    let e = residual::entry(space, x.stored(), id, &mut bits);
    (e, bits)
}

/// Appends an entry: into the last entry page, or a new one. Block 0 is locked already; touches at most two
/// pages more.
fn append_entry<C: Change>(
    change: &mut C,
    index: &Index,
    meta: &mut Meta,
    x: &Quantized,
    id: NodeId,
) -> Result<(), AccessError<C::Error>> {
    let g = index.space.geometry;
    let (e, bits) = encode_entry(index, x, id);
    let last = BlockNumber(meta.entry_last);
    let mut count = None;
    if last.0 != 0 {
        let page = change.page(last)?;
        let (_, used) = entry::header(page, &g).at(last)?;
        if used < g.entries_per_page() {
            count = Some(used);
        }
    }
    if let Some(used) = count {
        entry::set(change.page(last)?, &g, used, &e, &bits);
    } else {
        let block = change.extend()?;
        let page = change.page(block)?;
        entry::init(page, &g);
        entry::set(page, &g, 0, &e, &bits);
        if last.0 == 0 {
            meta.entry_first = block.0;
        } else {
            entry::set_next(change.page(last)?, block.0);
        }
        meta.entry_last = block.0;
    }
    meta.entry_count += 1;
    meta.entry_generation = meta.entry_generation.wrapping_add(1);
    meta.encode_links(change.page(BlockNumber(0))?);
    Ok(())
}
