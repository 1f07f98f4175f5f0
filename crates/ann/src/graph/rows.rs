//! The rows of a node: the tid in its header and those in its chain of cells.
//!
//! A reader holds no lock between two rows, and vacuum takes empty cells out of chains, which others then use.
//! But numbers fall along a chain: where the next cell is not one of the node with a smaller number, the reader
//! starts again from the node and goes to the first number that it has not seen.

use crate::index::{AccessError, Decoded, read_header};
use crate::layout::node::{Header, State};
use crate::layout::tids::{self, CellId};
use crate::layout::{Geometry, HeapTid, NodeId};
use crate::store::PageStore;

/// Times that a reader may find the chain changed under it without getting ahead.
const MOST_ENTERED: u32 = 1000;

/// Reads the rows of one node, one run of cells at a time.
pub struct Rows {
    owner: NodeId,
    generation: u16,
    /// Times that the chain was entered again since the last row.
    entered: u32,
    ready: Vec<HeapTid>,
    next: u32,
    /// Cells of this number and above were read.
    seen: u32,
}

impl Rows {
    /// The rows of a node whose header was read under its page's lock.
    #[must_use]
    pub fn new(owner: NodeId, header: &Header) -> Self {
        let ready = if header.tid.is_valid() { vec![header.tid] } else { Vec::new() };
        let Header { generation, tids: next, .. } = *header;
        Self { owner, generation, entered: 0, ready, next, seen: u32::MAX }
    }

    /// The next row. Rows that come meanwhile may be missed, others not, and none comes twice.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn next<S: PageStore>(
        &mut self,
        store: &S,
        g: &Geometry,
    ) -> Result<Option<HeapTid>, AccessError<S::Error>> {
        loop {
            if let Some(tid) = self.ready.pop() {
                return Ok(Some(tid));
            }
            if self.next == 0 {
                return Ok(None);
            }
            store.check_interrupts()?;
            let block = CellId(self.next).block();
            let page = store.read(block)?;
            tids::check(&page).at(block)?;
            let mut stray = false;
            while self.next != 0 && CellId(self.next).block() == block && !stray {
                let cell = tids::get(&page, CellId(self.next).place());
                stray = !cell.is_of(self.owner, self.generation) || cell.number >= self.seen;
                if !stray {
                    self.ready.extend(cell.tids.into_iter().filter(|tid| tid.is_valid()));
                    (self.next, self.seen, self.entered) = (cell.next, cell.number, 0);
                }
            }
            drop(page);
            if stray {
                self.enter_again(store, g)?;
            }
        }
    }

    /// Goes from the node to the first cell that was not read, or to the end.
    fn enter_again<S: PageStore>(&mut self, store: &S, g: &Geometry) -> Result<(), AccessError<S::Error>> {
        let header = read_header(store, g, self.owner)?;
        if header.state != State::Live || header.generation != self.generation {
            self.next = 0; // All its rows were dead.
            return Ok(());
        }
        // Vacuum takes cells away one run after another; a chain that leads astray again and again is damaged.
        if self.entered == MOST_ENTERED {
            return Err(AccessError::EndlessChain { block: CellId(self.next).block() });
        }
        (self.entered, self.next) = (self.entered + 1, header.tids);
        let mut passed = u32::MAX;
        while self.next != 0 {
            store.check_interrupts()?;
            let block = CellId(self.next).block();
            let page = store.read(block)?;
            tids::check(&page).at(block)?;
            while self.next != 0 && CellId(self.next).block() == block {
                let cell = tids::get(&page, CellId(self.next).place());
                // The caller meets a stray cell again, and comes back here.
                let stray = !cell.is_of(self.owner, self.generation) || cell.number >= passed;
                if stray || cell.number < self.seen {
                    return Ok(());
                }
                (self.next, passed) = (cell.next, cell.number);
            }
        }
        Ok(())
    }
}
