//! Giving a node one more row: the same vector under another heap tid.
//!
//! Updates of other columns and copies of one picture end here, without touching the graph. The node's page
//! is part of every such change, and its version moves: vacuum notices by it that a row arrived.

use crate::index::{AccessError, Decoded, Index, read_header, read_meta};
use crate::layout::meta::Meta;
use crate::layout::node::{Header, Node, NodeMut, State};
use crate::layout::tids::{self, Cell, CellId, FIRST_NUMBER};
use crate::layout::{BlockNumber, HeapTid, NodeId};
use crate::store::{Change, PageStore};

/// Adds a row to a node; false if the node is not live any more or has another vector by now. `error` is
/// the bound of the row's own vector.
///
/// # Errors
/// [`AccessError`].
pub fn add_row<S: PageStore>(
    store: &S,
    index: &Index,
    id: NodeId,
    generation: u16,
    error: f32,
    tid: HeapTid,
) -> Result<bool, AccessError<S::Error>> {
    let g = &index.space.geometry;
    let (block, slot) = (g.block_of(id), g.slot_of(id));
    // Each turn of this loop that ends without a result saw another session make progress.
    loop {
        store.check_interrupts()?;
        let seen = read_header(store, g, id)?;
        if seen.state != State::Live || seen.generation != generation {
            return Ok(false);
        }
        let Chain { room, number } = match look_into_chain(store, id, &seen)? {
            Some(chain) => chain,
            // Vacuum has taken cells out of it.
            None if read_header(store, g, id)? != seen => continue,
            None => return Err(AccessError::EndlessChain { block: CellId(seen.tids).block() }),
        };
        let meta = if seen.tid.is_valid() && room.is_none() { Some(read_meta(store)?) } else { None };

        let mut change = store.change()?;
        let free_page = meta.as_ref().map(|m| BlockNumber(m.tids_free)).filter(|b| b.0 != 0);
        let cell_page = match room {
            Some(cell) if seen.tid.is_valid() => Some(cell.block()),
            _ => free_page,
        };
        let zero = meta.is_some().then_some(BlockNumber(0));
        let mut blocks: Vec<BlockNumber> = zero.into_iter().chain(cell_page).chain([block]).collect();
        blocks.sort_unstable();
        blocks.dedup();
        for &block in &blocks {
            change.page(block)?;
        }
        let page = change.page(block)?;
        let header = *Node::read(page, g, slot).at(block)?.header();
        if header != seen {
            continue;
        }
        let mut changed =
            Header { version: header.version.wrapping_add(1), error: header.error.max(error), ..header };
        if !header.tid.is_valid() {
            changed.tid = tid;
        } else if let Some(at) = room {
            let page = change.page(at.block())?;
            let mut cell = tids::get(page, at.place());
            // The node did not change, so its chain did not; vacuum may only have emptied more places.
            let Some(place) = cell.empty_place().filter(|_| cell.is_of(id, generation)) else { continue };
            cell.tids[place] = tid;
            tids::set(page, at.place(), &cell);
        } else {
            let cell = Cell { owner: id, next: header.tids, generation, number, ..Cell::FREE };
            let Some(cell) = new_cell(&mut change, free_page, cell, tid)? else { continue };
            changed.tids = cell.0;
        }
        let page = change.page(block)?;
        NodeMut::open(page, g, slot).at(block)?.set_header(&changed);
        change.commit()?;
        return Ok(true);
    }
}

/// Cells of a chain that are looked at for an empty place. Rows of a much copied vector come and go; without
/// a look beyond the head its chain would grow for ever.
const CELLS_TRIED: usize = 64;

/// What a new row needs to know of a node's chain.
struct Chain {
    /// A cell with an empty place, among the first ones.
    room: Option<CellId>,
    /// Number of the next cell in front.
    number: u32,
}

/// `None` if the chain is not whole any more.
fn look_into_chain<S: PageStore>(
    store: &S,
    id: NodeId,
    header: &Header,
) -> Result<Option<Chain>, AccessError<S::Error>> {
    let mut chain = Chain { room: None, number: FIRST_NUMBER };
    let mut next = CellId(header.tids);
    let mut tried = 0;
    while next.0 != 0 && tried < CELLS_TRIED {
        // Neighbors in a chain mostly share a page.
        let block = next.block();
        let page = store.read(block)?;
        tids::check(&page).at(block)?;
        while next.0 != 0 && next.block() == block && tried < CELLS_TRIED {
            let cell = tids::get(&page, next.place());
            if !cell.is_of(id, header.generation) {
                return Ok(None);
            }
            if tried == 0 {
                chain.number = cell.number.checked_add(1).ok_or(AccessError::Full)?;
            }
            if cell.empty_place().is_some() {
                chain.room = Some(next);
                return Ok(Some(chain));
            }
            next = CellId(cell.next);
            tried += 1;
        }
    }
    Ok(Some(chain))
}

/// Takes a free cell, from the first page of the list or a new page, and makes it the head of the node's
/// chain. `None` if the list changed since the metapage was read.
fn new_cell<C: Change>(
    change: &mut C,
    free_page: Option<BlockNumber>,
    mut cell: Cell,
    tid: HeapTid,
) -> Result<Option<CellId>, AccessError<C::Error>> {
    let zero = BlockNumber(0);
    let mut meta = Meta::decode(change.page(zero)?).at(zero)?;
    if meta.tids_free != free_page.map_or(0, |b| b.0) {
        return Ok(None);
    }
    cell.tids[0] = tid;
    let (block, page) = match free_page {
        Some(block) => {
            let page = change.page(block)?;
            tids::check(page).at(block)?;
            (block, page)
        }
        None => {
            let block = change.extend()?;
            let page = change.page(block)?;
            tids::init(page, meta.geometry.epoch());
            tids::set_free_link(page, 0, true);
            (block, page)
        }
    };
    let place = tids::free_place(page);
    if let Some(place) = place {
        tids::set(page, place, &cell);
    }
    let (next, _) = tids::free_link(page);
    let full = tids::free_place(page).is_none();
    if full {
        tids::set_free_link(page, 0, false);
    }
    meta.tids_free = if full { next } else { block.0 };
    meta.encode_links(change.page(zero)?);
    // A listed page without a free cell cannot be, unless it is damaged: then nothing is taken from it.
    match place {
        Some(place) => CellId::at(block, place).ok_or(AccessError::Full).map(Some),
        None => Err(AccessError::Damaged {
            block,
            error: crate::layout::PageError::Field { field: "free cells", found: 0, low: 1, high: 127 },
        }),
    }
}
