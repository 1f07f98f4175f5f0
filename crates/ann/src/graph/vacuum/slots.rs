//! Slots of dead nodes that nobody links to any more.

use super::VacuumStats;
use crate::bits::Bits;
use crate::index::{AccessError, Decoded, Index};
use crate::layout::NodeId;
use crate::layout::node::{Header, NodeMut, State};
use crate::store::{Change, PageStore};

/// Frees them, a page in one change.
pub(super) fn free_slots<S: PageStore>(
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
