//! Cells without rows: of dead nodes, and within the chains of live ones.

use super::{bits, blocks};
use crate::index::{AccessError, Decoded, Index, read_header};
use crate::layout::meta::Meta;
use crate::layout::node::{Header, NodeMut, State};
use crate::layout::tids::{self, CELLS, Cell, CellId};
use crate::layout::{BlockNumber, Geometry, Kind, NodeId, kind_in};
use crate::store::{Change, PageStore};

/// Frees cells without rows: those whose owner has forgotten them, and those in the chains of live nodes.
pub(super) fn free_cells<S: PageStore>(store: &S, index: &Index) -> Result<(), AccessError<S::Error>> {
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
