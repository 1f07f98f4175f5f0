//! Forgetting dead rows: nodes without rows are marked dead, and searches still walk through them.

use super::{VacuumStats, bits, blocks, change_header, headers};
use crate::bits::Bits;
use crate::graph::rows::Rows;
use crate::index::{AccessError, Decoded, Index, read_header};
use crate::layout::node::{Header, State};
use crate::layout::tids::{self, CELLS, Cell};
use crate::layout::{HeapTid, Kind, NodeId, kind_in};
use crate::store::{Change, PageStore};

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
