//! Taking rows away, in two steps as the server asks for them.
//!
//! [`delete`] forgets dead rows and marks nodes without rows as dead: searches still walk through them.
//! [`cleanup`] then repairs the links of live nodes, and only when nobody links to them any more frees the
//! slots of the dead ones. A crash anywhere between leaves dead nodes that the next vacuum finds.
//!
//! An index may be larger than memory: both remember a few bits of each node.

use super::edges::{self, Wish};
use super::insert::{add_edge, neighborhood};
use super::prune::ALPHA;
use super::reach::Reach;
use super::rows::Rows;
use super::walk::l2_estimates;
use crate::bits::Bits;
use crate::build::products;
use crate::index::{AccessError, Decoded, Index, read_header};
use crate::layout::meta::Meta;
use crate::layout::node::{Edge, Header, Node, NodeMut, State};
use crate::layout::tids::{self, CELLS, Cell, CellId};
use crate::layout::{BlockNumber, Geometry, HeapTid, Kind, MAX_DEGREE, NodeId, entry, kind_in};
use crate::quantize::residual::{self, Encoder};
use crate::random::SplitMix64;
use crate::space::{Quantized, Query};
use crate::store::{Change, PageStore};
use std::collections::HashSet;

/// Nearest dead neighbors whose own neighbors are taken over, and of those with the highest products as many.
const SPLICED: usize = 4;
/// Neighbors taken over from each.
const SPLICED_FROM_EACH: usize = 6;
/// Times that nodes are looked for which lost their links, also by what the last time did.
const RELINK_ROUNDS: usize = 3;
/// Nodes among which a new entry is looked for.
const TRIES: usize = 8;
/// Nearest nodes that link to a node nobody links to.
const RELINKED_FROM: usize = 4;

/// What a vacuum did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VacuumStats {
    /// Rows that remain.
    pub rows: u64,
    /// Rows forgotten.
    pub removed: u64,
    /// Nodes marked dead.
    pub died: u64,
    /// Live nodes whose links were repaired.
    pub repaired: u64,
    /// Live nodes that only dead ones led to, and that are linked again.
    pub relinked: u64,
    /// Slots freed.
    pub freed: u64,
}

fn blocks<S: PageStore>(
    store: &S,
) -> Result<impl Iterator<Item = BlockNumber> + use<S>, AccessError<S::Error>> {
    Ok((1..store.block_count()?).map(BlockNumber))
}

/// One bit for each node's place, none set. Pages that are added later have no bits: their nodes are new.
fn bits<S: PageStore>(store: &S, index: &Index) -> Result<Bits, AccessError<S::Error>> {
    let pages = store.block_count()? as usize;
    Ok(Bits::new(pages * index.space.geometry.slots()))
}

/// The nodes of a page with their ids; nothing if it is no node page.
fn headers<S: PageStore>(
    store: &S,
    index: &Index,
    block: BlockNumber,
) -> Result<Vec<(NodeId, Header)>, AccessError<S::Error>> {
    let g = &index.space.geometry;
    store.check_interrupts()?;
    let page = store.read(block)?;
    if kind_in(&page, g.epoch()).at(block)? != Kind::Node {
        return Ok(Vec::new());
    }
    let mut all = Vec::with_capacity(g.slots());
    for slot in 0..g.slots() {
        let header = *Node::read(&page, g, slot).at(block)?.header();
        all.extend(g.node_id(block, slot).map(|id| (id, header)));
    }
    Ok(all)
}

/// Changes one node's header, if it still has this version; answers whether it had.
fn change_header<S: PageStore>(
    store: &S,
    index: &Index,
    id: NodeId,
    seen: &Header,
    edit: impl FnOnce(&mut Header),
) -> Result<bool, AccessError<S::Error>> {
    let g = &index.space.geometry;
    let block = g.block_of(id);
    let mut change = store.change()?;
    let page = change.page(block)?;
    let mut node = NodeMut::open(page, g, g.slot_of(id)).at(block)?;
    let mut header = *node.as_node().header();
    if header.version != seen.version || header.generation != seen.generation {
        return Ok(false);
    }
    edit(&mut header);
    header.version = header.version.wrapping_add(1);
    node.set_header(&header);
    change.commit()?;
    Ok(true)
}

/// Forgets the rows that `is_dead` names and marks nodes without rows as dead.
///
/// # Errors
/// [`AccessError`].
pub fn delete<S: PageStore>(
    store: &S,
    index: &Index,
    mut is_dead: impl FnMut(HeapTid) -> bool,
) -> Result<VacuumStats, AccessError<S::Error>> {
    let mut stats = VacuumStats::default();
    // Cells first: then the nodes that have live rows there are known.
    let mut owners = bits(store, index)?;
    for block in blocks(store)? {
        store.check_interrupts()?;
        let cells: Vec<(usize, Cell)> = {
            let page = store.read(block)?;
            if kind_in(&page, index.space.geometry.epoch()).at(block)? != Kind::Tids {
                continue;
            }
            (0..CELLS).map(|place| (place, tids::get(&page, place))).collect()
        };
        let mut dead: Vec<(usize, HeapTid)> = Vec::new();
        for (place, cell) in cells.iter().filter(|(_, cell)| cell.owner != NodeId::NONE) {
            for tid in cell.tids.into_iter().filter(|tid| tid.is_valid()) {
                if is_dead(tid) {
                    dead.push((*place, tid));
                } else {
                    owners.set(cell.owner.0);
                    stats.rows += 1;
                }
            }
        }
        if !dead.is_empty() {
            let mut change = store.change()?;
            let page = change.page(block)?;
            for (place, tid) in dead {
                let mut cell = tids::get(page, place);
                for t in cell.tids.iter_mut().filter(|t| **t == tid) {
                    *t = HeapTid::INVALID;
                }
                tids::set(page, place, &cell);
                stats.removed += 1;
            }
            change.commit()?;
        }
    }
    for block in blocks(store)? {
        for (id, _) in headers(store, index, block)? {
            delete_from_node(store, index, id, &owners, &mut is_dead, &mut stats)?;
        }
    }
    Ok(stats)
}

fn delete_from_node<S: PageStore>(
    store: &S,
    index: &Index,
    id: NodeId,
    owners: &Bits,
    is_dead: &mut impl FnMut(HeapTid) -> bool,
    stats: &mut VacuumStats,
) -> Result<(), AccessError<S::Error>> {
    let g = &index.space.geometry;
    // Another session may give the node a row at any moment; its version tells, and we look again.
    loop {
        let header = read_header(store, g, id)?;
        if header.state != State::Live {
            return Ok(());
        }
        let gone = header.tid.is_valid() && is_dead(header.tid);
        if header.tid.is_valid() && !gone {
            stats.rows += 1;
            return Ok(());
        }
        let further = header.tids != 0
            && (owners.has(id.0) || {
                let mut rows = Rows::new(id, &Header { tid: HeapTid::INVALID, ..header });
                rows.next(store, g)?.is_some()
            });
        if further && !gone {
            return Ok(());
        }
        let done = change_header(store, index, id, &header, |h| {
            h.tid = HeapTid::INVALID;
            if !further {
                h.state = State::Dead;
                h.tids = 0;
            }
        })?;
        if done {
            stats.removed += u64::from(gone);
            stats.died += u64::from(!further);
            return Ok(());
        }
    }
}

/// Repairs the links round dead nodes and frees their slots. `random` picks new entries.
///
/// # Errors
/// [`AccessError`].
pub fn cleanup<S: PageStore>(
    store: &S,
    index: &mut Index,
    random: &mut SplitMix64,
) -> Result<VacuumStats, AccessError<S::Error>> {
    let mut stats = VacuumStats::default();
    index.refresh(store)?;
    let mut dead = bits(store, index)?;
    let mut live: Vec<(NodeId, Header)> = Vec::new();
    let mut live_seen = 0usize;
    for block in blocks(store)? {
        for (id, header) in headers(store, index, block)? {
            match header.state {
                State::Dead => dead.set(id.0),
                State::Live => {
                    // A sample of the live nodes, for holes in the entry table.
                    live_seen += 1;
                    if live.len() < SAMPLE {
                        live.push((id, header));
                    } else if random.below(live_seen) < SAMPLE {
                        live[random.below(SAMPLE)] = (id, header);
                    }
                }
                State::Free => {}
            }
        }
    }
    if !dead.is_empty() {
        // Nodes that appear after this are linked by whoever inserts them.
        let end = store.block_count()?;
        // First new links for those that only dead nodes lead to, then the old ones go: whichever change is the last, each live node
        // can be reached.
        // Without any live entry there is none to reach them from.
        let has_entries = index.entry_points().any(|id| !dead.has(id.0));
        if !has_entries {
            replace_entries(store, index, &dead, &live, random)?;
            index.refresh(store)?;
        }
        relink_lost(store, index, end, &dead, &mut stats)?;
        for block in blocks(store)? {
            for (id, header) in headers(store, index, block)? {
                if header.state == State::Live {
                    repair(store, index, id, &dead, &mut stats)?;
                }
            }
        }
        replace_entries(store, index, &dead, &live, random)?;
        index.refresh(store)?;
        free_slots(store, index, &dead, &mut stats)?;
    }
    free_cells(store, index)?;
    // The free-space map may have been lost.
    for block in blocks(store)? {
        let never_written = {
            let page = store.read(block)?;
            kind_in(&page, index.space.geometry.epoch()).at(block)? == Kind::New
        };
        if never_written || headers(store, index, block)?.iter().any(|(_, h)| h.state == State::Free) {
            store.record_free(block, true);
        }
    }
    Ok(stats)
}

/// Live nodes remembered as candidates for the entry table.
const SAMPLE: usize = 1024;

/// A node taken over from a dead one.
struct Heir {
    id: NodeId,
    estimate: f32,
    protected: bool,
    /// Inner product with a unit vector in the node's direction, where norms are known; else zero.
    product: f32,
    /// It takes the place of a link to a high product.
    is_high: bool,
}

/// Removes one node's edges to dead nodes and gives it some of their neighbors.
fn repair<S: PageStore>(
    store: &S,
    index: &Index,
    id: NodeId,
    dead: &Bits,
    stats: &mut VacuumStats,
) -> Result<(), AccessError<S::Error>> {
    let space = &index.space;
    let g = &space.geometry;
    let block = g.block_of(id);
    let (header, codes, keys, edges, high_gone) = {
        let page = store.read(block)?;
        let node = Node::read(&page, g, g.slot_of(id)).at(block)?;
        let high = edges::products_of(&node).map_or([false; MAX_DEGREE], |(highest, _)| highest);
        let high_gone = node.ids().zip(high).filter(|(to, is_high)| *is_high && dead.has(to.0)).count();
        let edges: Vec<Edge> = (0..node.header().degree).map(|i| node.edge(i)).collect();
        (*node.header(), node.vector().to_vec(), node.keys().to_vec(), edges, high_gone)
    };
    let (mut gone, kept): (Vec<Edge>, Vec<Edge>) = edges.into_iter().partition(|e: &Edge| dead.has(e.id.0));
    if gone.is_empty() {
        return Ok(());
    }
    stats.repaired += 1;
    gone.sort_by(|a, b| a.distance_squared.total_cmp(&b.distance_squared));
    let own = header.stored(&codes, &keys);
    let query = Query::stored(space, space.decoded(own));
    let mut heirs: Vec<Heir> = Vec::new();
    let (near, others) = gone.split_at(gone.len().min(SPLICED));
    let mut high: Vec<&Edge> = if high_gone > 0 { others.iter().collect() } else { Vec::new() };
    let product = |edge: &Edge| products::product(edge.weight, edge.distance_squared);
    high.sort_by(|a, b| product(b).total_cmp(&product(a)));
    for edge in near.iter().chain(high.into_iter().take(SPLICED)) {
        store.check_interrupts()?;
        let at = g.block_of(edge.id);
        let page = store.read(at)?;
        let node = Node::read(&page, g, g.slot_of(edge.id)).at(at)?;
        let score = query.score(space, node.stored());
        let estimates = l2_estimates(index, &query, &node, score);
        let mut theirs: Vec<Heir> = node
            .ids()
            .enumerate()
            .filter(|(_, heir)| *heir != id && !dead.has(heir.0) && kept.iter().all(|e| e.id != *heir))
            .map(|(i, id)| Heir {
                id,
                estimate: estimates[i],
                protected: node.header().protected >> i & 1 == 1,
                product: match space.is_weighted() {
                    true => products::product(node.edge(i).weight, estimates[i]),
                    false => 0.0,
                },
                is_high: false,
            })
            .collect();
        theirs.sort_by(|a, b| b.protected.cmp(&a.protected).then(a.estimate.total_cmp(&b.estimate)));
        let sure = theirs.iter().filter(|h| h.protected).count();
        theirs.truncate(SPLICED_FROM_EACH.max(sure));
        heirs.extend(theirs);
    }
    heirs.sort_by(|a, b| {
        a.id.cmp(&b.id).then(b.protected.cmp(&a.protected)).then(a.estimate.total_cmp(&b.estimate))
    });
    heirs.dedup_by_key(|h| h.id);
    heirs.sort_by(|a, b| b.product.total_cmp(&a.product));
    heirs.iter_mut().take(high_gone).for_each(|heir| heir.is_high = heir.product > 0.0);
    let rank = |heir: &Heir| (!heir.protected, !heir.is_high);
    heirs.sort_by(|a, b| rank(a).cmp(&rank(b)).then(a.estimate.total_cmp(&b.estimate)));

    // Their vectors are read one by one until the places of the dead are taken.
    let mut chosen: Vec<Chosen> = Vec::new();
    for heir in heirs {
        if chosen.len() >= MAX_DEGREE - kept.len().min(MAX_DEGREE) || chosen.len() >= gone.len() {
            break;
        }
        store.check_interrupts()?;
        let at = g.block_of(heir.id);
        let page = store.read(at)?;
        let node = Node::read(&page, g, g.slot_of(heir.id)).at(at)?;
        if node.header().state != State::Live {
            continue;
        }
        let vector = space.decoded(node.stored());
        let distance = query.score(space, node.stored());
        let occluded = chosen.iter().any(|other| ALPHA * space.between(&other.vector, &vector) <= distance);
        if heir.protected || heir.is_high || !occluded {
            let (header, codes, keys) = (*node.header(), node.vector().to_vec(), node.keys().to_vec());
            chosen.push(Chosen { id: heir.id, header, codes, keys, vector, protected: heir.protected });
        }
    }

    let mut change = store.change()?;
    let page = change.page(block)?;
    let mut node = NodeMut::open(page, g, g.slot_of(id)).at(block)?;
    if node.as_node().header().generation != header.generation {
        return Ok(());
    }
    for i in (0..node.as_node().header().degree).rev() {
        if dead.has(node.as_node().id(i).0) {
            node.remove_edge(i);
        }
    }
    let mut bits = vec![0u8; g.code_bytes()];
    let mut encoder = Encoder::new(space, own);
    for Chosen { id: other, header, codes, keys, protected, .. } in &chosen {
        let mut h = *node.as_node().header();
        if h.degree == MAX_DEGREE || node.as_node().ids().any(|id| id == *other) {
            continue;
        }
        let edge = encoder.edge(header.stored(codes, keys), *other, &mut bits);
        node.set_edge(h.degree, &edge, &bits);
        if *protected && h.protected.count_ones() < edges::MAX_PROTECTED {
            h.protected |= 1 << h.degree;
        }
        h.degree += 1;
        node.set_header(&h);
    }
    Ok(change.commit()?)
}

/// A node that takes the place of a dead neighbor.
struct Chosen {
    id: NodeId,
    header: Header,
    codes: Vec<i8>,
    keys: Vec<u8>,
    /// Decoded.
    vector: Vec<f32>,
    protected: bool,
}

/// Gives the entries of dead nodes to live ones of the sample; without any they become holes.
fn replace_entries<S: PageStore>(
    store: &S,
    index: &Index,
    dead: &Bits,
    live: &[(NodeId, Header)],
    random: &mut SplitMix64,
) -> Result<(), AccessError<S::Error>> {
    let space = &index.space;
    let g = &space.geometry;
    let all: Vec<(usize, NodeId)> = index.entry_points_with_place().collect();
    let mut used: HashSet<NodeId> = all.iter().map(|&(_, id)| id).collect();
    for (i, id) in all {
        if !dead.has(id.0) {
            continue;
        }
        store.check_interrupts()?;
        let Some((block, place)) = index.entry_place(i) else { continue };
        // A few tries for a node that is no entry yet; where norms are known, for the longest of some.
        let mut heirs: Vec<&(NodeId, Header)> =
            (0..TRIES).filter(|_| !live.is_empty()).map(|_| &live[random.below(live.len())]).collect();
        if space.is_weighted() {
            heirs.sort_by(|a, b| b.1.bias.total_cmp(&a.1.bias));
        }
        let heir = heirs.into_iter().map(|&(id, _)| id).find(|id| used.insert(*id));
        let mut bits = vec![0u8; g.code_bytes()];
        let mut e = None;
        if let Some(heir) = heir {
            let at = g.block_of(heir);
            let page = store.read(at)?;
            let node = Node::read(&page, g, g.slot_of(heir)).at(at)?;
            if node.header().state == State::Live {
                e = Some(residual::entry(space, node.stored(), heir, &mut bits));
            }
        }
        let zero = BlockNumber(0);
        let mut change = store.change()?;
        let mut meta = Meta::decode(change.page(zero)?).at(zero)?;
        let page = change.page(block)?;
        entry::header(page, g).at(block)?;
        // An insert may have replaced this very entry in between.
        if entry::get(page, g, place).id != id {
            continue;
        }
        match e {
            Some(e) => entry::set(page, g, place, &e, &bits),
            None => entry::clear(page, g, place),
        }
        meta.entry_generation = meta.entry_generation.wrapping_add(1);
        meta.encode_links(change.page(zero)?);
        change.commit()?;
    }
    Ok(())
}

/// Links live nodes that no path of live nodes from the entries leads to. Others like them may link to them.
fn relink_lost<S: PageStore>(
    store: &S,
    index: &Index,
    end: u32,
    dead: &Bits,
    stats: &mut VacuumStats,
) -> Result<(), AccessError<S::Error>> {
    let g = &index.space.geometry;
    // A relinked node may take the place of the only link to another, which the next round finds.
    for _ in 0..RELINK_ROUNDS {
        let mut live = bits(store, index)?;
        for block in (1..end).map(BlockNumber) {
            for (id, _) in headers(store, index, block)?.iter().filter(|(_, h)| h.state == State::Live) {
                live.set(id.0);
            }
        }
        let is_wanted = |id: NodeId| live.has(id.0) && !dead.has(id.0);
        let mut reach = Reach::new(g, end);
        index.entry_points().filter(|&id| is_wanted(id)).for_each(|id| reach.set(id));
        reach.follow(store, g, is_wanted, |_| ())?;
        let mut lost = 0;
        for id in live.iter().map(NodeId) {
            if !reach.has(id) && g.block_of(id).0 < end {
                relink(store, index, id)?;
                lost += 1;
                // With it comes what it links to.
                reach.set(id);
                reach.follow(store, g, is_wanted, |_| ())?;
            }
        }
        stats.relinked += lost;
        if lost == 0 {
            break;
        }
    }
    Ok(())
}

/// Links a node that nobody links to from its nearest neighbors.
fn relink<S: PageStore>(store: &S, index: &Index, id: NodeId) -> Result<(), AccessError<S::Error>> {
    let space = &index.space;
    let g = &space.geometry;
    let x = {
        let page = store.read(g.block_of(id))?;
        let node = Node::read(&page, g, g.slot_of(id)).at(g.block_of(id))?;
        let h = node.header();
        if h.state != State::Live {
            return Ok(());
        }
        Quantized {
            codes: node.vector().to_vec(),
            keys: node.keys().to_vec(),
            lead: h.lead,
            trail: h.trail,
            reference: h.reference,
            error: h.error,
            bias: h.bias,
        }
    };
    let query = Query::stored(space, space.decoded(x.stored()));
    let met = neighborhood(store, index, &query)?.met;
    let mut linked = 0;
    for m in met.iter().filter(|m| m.id != id) {
        let wish = if linked == 0 { Wish::Protected } else { Wish::Needed };
        linked += usize::from(add_edge(store, index, m.id, m.header.generation, id, &x, &query, wish)?);
        if linked == RELINKED_FROM {
            break;
        }
    }
    Ok(())
}

fn free_slots<S: PageStore>(
    store: &S,
    index: &Index,
    dead: &Bits,
    stats: &mut VacuumStats,
) -> Result<(), AccessError<S::Error>> {
    let g = &index.space.geometry;
    let mut left = dead.iter().map(NodeId).peekable();
    while let Some(&first) = left.peek() {
        store.check_interrupts()?;
        let block = g.block_of(first);
        let mut change = store.change()?;
        let page = change.page(block)?;
        while let Some(id) = left.next_if(|&id| g.block_of(id) == block) {
            let mut node = NodeMut::open(page, g, g.slot_of(id)).at(block)?;
            let h = *node.as_node().header();
            if h.state == State::Dead {
                let (version, generation) = (h.version.wrapping_add(1), h.generation);
                node.set_header(&Header { version, generation, ..Header::FREE });
                stats.freed += 1;
            }
        }
        change.commit()?;
        store.record_free(block, true);
    }
    Ok(())
}

/// Frees cells without rows: those whose owner has forgotten them, and those in the chains of live nodes.
fn free_cells<S: PageStore>(store: &S, index: &Index) -> Result<(), AccessError<S::Error>> {
    let g = &index.space.geometry;
    let mut owners = bits(store, index)?;
    for block in blocks(store)? {
        store.check_interrupts()?;
        let idle: Vec<(usize, Cell)> = {
            let page = store.read(block)?;
            if kind_in(&page, index.space.geometry.epoch()).at(block)? != Kind::Tids {
                continue;
            }
            let cells = (0..CELLS).map(|place| (place, tids::get(&page, place)));
            cells.filter(|(_, cell)| cell.owner != NodeId::NONE && cell.is_empty()).collect()
        };
        let mut forgotten = Vec::new();
        for (place, cell) in idle {
            let owner = read_header(store, g, cell.owner)?;
            if owner.state == State::Live && owner.generation == cell.generation && owner.tids != 0 {
                owners.set(cell.owner.0);
            } else {
                forgotten.push((place, cell));
            }
        }
        if forgotten.is_empty() {
            continue;
        }
        let mut change = store.change()?;
        change.page(BlockNumber(0))?;
        let page = change.page(block)?;
        for (place, cell) in forgotten {
            if tids::get(page, place) == cell {
                tids::set(page, place, &Cell::FREE);
            }
        }
        list_page(&mut change, block)?;
        change.commit()?;
    }
    owners.iter().try_for_each(|owner| shorten(store, index, NodeId(owner)))
}

/// Puts a tid page into the list of those with free cells. It and the metapage are locked.
fn list_page<C: Change>(change: &mut C, block: BlockNumber) -> Result<(), AccessError<C::Error>> {
    let zero = BlockNumber(0);
    let mut meta = Meta::decode(change.page(zero)?).at(zero)?;
    let page = change.page(block)?;
    if !tids::free_link(page).1 {
        tids::set_free_link(page, meta.tids_free, true);
        meta.tids_free = block.0;
        meta.encode_links(change.page(zero)?);
    }
    Ok(())
}

/// Takes cells without rows out of a node's chain.
fn shorten<S: PageStore>(store: &S, index: &Index, owner: NodeId) -> Result<(), AccessError<S::Error>> {
    let g = &index.space.geometry;
    // Whenever a session has given the node a row in between, from the start.
    'again: loop {
        let mut header = read_header(store, g, owner)?;
        if header.state != State::Live {
            return Ok(());
        }
        let generation = header.generation;
        let (mut before, mut next, mut number) = (None, CellId(header.tids), u32::MAX);
        while next.0 != 0 {
            store.check_interrupts()?;
            let block = next.block();
            let mut run = Run { before, block, places: Vec::new(), behind: next };
            {
                let page = store.read(block)?;
                tids::check(&page).at(block)?;
                // Past cells with rows, then over empty ones, to the end of either the run or the page.
                while run.behind.0 != 0 && run.behind.block() == block {
                    let cell = tids::get(&page, run.behind.place());
                    if !cell.is_of(owner, generation) || cell.number >= number {
                        return Err(AccessError::EndlessChain { block });
                    }
                    if cell.is_empty() {
                        run.places.push(run.behind.place());
                    } else if run.places.is_empty() {
                        run.before = Some(run.behind);
                    } else {
                        break;
                    }
                    (run.behind, number) = (CellId(cell.next), cell.number);
                }
            }
            (before, next) = (run.before, run.behind);
            if !run.places.is_empty() {
                match take_out(store, g, owner, &header, &run)? {
                    Some(changed) => header = changed,
                    None => continue 'again,
                }
            }
        }
        return Ok(());
    }
}

/// Empty cells of one page that follow each other in a chain.
struct Run {
    before: Option<CellId>,
    block: BlockNumber,
    places: Vec<usize>,
    behind: CellId,
}

/// The node's new header, or `None` if it is not the expected one any more.
fn take_out<S: PageStore>(
    store: &S,
    g: &Geometry,
    owner: NodeId,
    expected: &Header,
    run: &Run,
) -> Result<Option<Header>, AccessError<S::Error>> {
    let at = g.block_of(owner);
    let mut blocks = [Some(BlockNumber(0)), Some(at), Some(run.block), run.before.map(CellId::block)];
    blocks.sort_unstable();
    let mut change = store.change()?;
    for block in blocks.into_iter().flatten() {
        change.page(block)?;
    }
    let page = change.page(at)?;
    let mut node = NodeMut::open(page, g, g.slot_of(owner)).at(at)?;
    let mut header = *node.as_node().header();
    // No row can have come to these cells then.
    if header != *expected {
        return Ok(None);
    }
    header.version = header.version.wrapping_add(1);
    if run.before.is_none() {
        header.tids = run.behind.0;
    }
    node.set_header(&header);
    if let Some(before) = run.before {
        let page = change.page(before.block())?;
        let cell = tids::get(page, before.place());
        tids::set(page, before.place(), &Cell { next: run.behind.0, ..cell });
    }
    let page = change.page(run.block)?;
    for &place in &run.places {
        tids::set(page, place, &Cell::FREE);
    }
    list_page(&mut change, run.block)?;
    change.commit()?;
    Ok(Some(header))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Metric;
    use crate::build::executor::Threads;
    use crate::build::{Builder, Parameters};
    use crate::graph::check::check;
    use crate::graph::insert::insert;
    use crate::graph::search::{Options, Search};
    use crate::layout::geometry::Stated;
    use crate::store::mem::MemStore;
    use std::sync::atomic::AtomicBool;

    fn tid(row: u32) -> HeapTid {
        HeapTid { block: row, offset: 1 }
    }

    #[test]
    fn an_index_whose_pages_an_earlier_version_laid_out_lives_on() {
        // What release 0.1.0 chose.
        for (dim, code, slots) in [(128, 128, 8), (192, 192, 6), (256, 256, 5), (320, 256, 4)] {
            let stated = Stated {
                format: 1,
                dim,
                padded_dim: dim,
                lead_dim: dim,
                code_dim: code,
                planes: 1,
                slots,
                leaders: 0,
                epoch: 0,
                columns: 0,
                signatures: 0,
                is_weighted: false,
            };
            let geometry = Geometry::checked(&stated).unwrap();
            let mut random = SplitMix64::new(dim.into());
            let vectors: Vec<Vec<f32>> = (0..900)
                .map(|_| (0..dim).map(|_| (random.next_u64() >> 40) as f32 - 8e6).collect())
                .collect();
            let parameters = Parameters::default();
            let mut builder = Builder::new(Metric::L2, geometry, 1, &[], usize::MAX, parameters).unwrap();
            for row in 0..400 {
                builder.add(&vectors[row as usize], tid(row)).unwrap();
            }
            let (cancel, mut store) = (AtomicBool::new(false), MemStore::new());
            builder.finish(&Threads::new(1, &cancel), &mut store, &mut |_| ()).unwrap();
            let mut index = Index::open(&store).unwrap();
            assert_eq!(*index.space().geometry(), geometry);
            let mut add = |index: &mut Index, rows: std::ops::Range<u32>| {
                for row in rows {
                    insert(&store, index, &vectors[row as usize], tid(row), &mut random).unwrap();
                }
            };
            add(&mut index, 400..600);
            let pages = store.block_count().unwrap();
            let deleted = delete(&store, &index, |tid| tid.block % 2 == 0).unwrap();
            assert_eq!((deleted.rows, deleted.removed), (300, 300));
            assert_eq!(cleanup(&store, &mut index, &mut SplitMix64::new(1)).unwrap().freed, 300);
            add(&mut index, 600..900);
            assert!(store.block_count().unwrap() <= pages + 1, "slots are used again");
            let report = check(&store, |_, _| ()).unwrap();
            assert_eq!((report.problems, report.unreachable, report.rows), (vec![], 0, 600));
            for row in (1..600).step_by(2).chain(600..900) {
                let mut search = Search::new(&index, &vectors[row as usize], &Options::default()).unwrap();
                assert_eq!(search.next(&store, &index).unwrap().map(|hit| hit.tid), Some(tid(row)), "{dim}");
            }
        }
    }
}
