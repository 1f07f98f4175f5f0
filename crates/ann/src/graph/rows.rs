//! The rows of a node: the tid in its header and those in its chain of cells.

use crate::index::{AccessError, damaged};
use crate::layout::node::Header;
use crate::layout::tids::{self, CELLS, CellId};
use crate::layout::{HeapTid, NodeId};
use crate::store::PageStore;

/// Reads the rows of one node, one run of cells at a time.
pub struct Rows {
    owner: NodeId,
    generation: u16,
    ready: Vec<HeapTid>,
    next: u32,
    cells_read: u64,
}

impl Rows {
    /// The rows of a node whose header was read under its page's lock.
    #[must_use]
    pub fn new(owner: NodeId, header: &Header) -> Self {
        let ready = if header.tid.is_valid() { vec![header.tid] } else { Vec::new() };
        Self { owner, generation: header.generation, ready, next: header.tids, cells_read: 0 }
    }

    /// The next row.
    ///
    /// A cell that belongs to somebody else by now ends the chain: vacuum takes cells away only when all
    /// rows of the node are gone.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn next<S: PageStore>(&mut self, store: &S) -> Result<Option<HeapTid>, AccessError<S::Error>> {
        loop {
            if let Some(tid) = self.ready.pop() {
                return Ok(Some(tid));
            }
            if self.next == 0 {
                return Ok(None);
            }
            store.check_interrupts().map_err(AccessError::Store)?;
            let block = CellId(self.next).block();
            let limit = u64::from(store.block_count().map_err(AccessError::Store)?) * CELLS as u64;
            let page = store.read(block).map_err(AccessError::Store)?;
            tids::check(&page).map_err(damaged(block))?;
            while self.next != 0 && CellId(self.next).block() == block {
                let cell = tids::get(&page, CellId(self.next).place());
                if cell.owner != self.owner || cell.generation != self.generation {
                    self.next = 0;
                    break;
                }
                self.cells_read += 1;
                if self.cells_read > limit {
                    return Err(AccessError::EndlessChain { block });
                }
                self.ready.extend(cell.tids.into_iter().filter(|tid| tid.is_valid()));
                self.next = cell.next;
            }
        }
    }
}
