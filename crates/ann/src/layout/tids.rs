//! Tid pages: cells with the heap tids of rows whose vector another row's node already holds.
//!
//! Ten thousand copies of one picture, or the versions that updates of other columns leave behind, share
//! one node; its further tids lie in a chain of cells. Cells of many nodes share a page. Cells are numbered,
//! falling along the chain: a reader that holds the id of a cell, and no lock, knows by owner, generation and
//! number whether it still is what came next.
//!
//! | offset | width | type | field |
//! |---|---|---|---|
//! | 0 | 4 | u32 | next page with a free cell, 0 if none |
//! | 4 | 2 | u16 | 1 if this page is in that list |
//! | 6 | 2 | - | 0 |
//! | 8 | 64 each | | 127 cells |
//!
//! | offset | width | type | cell |
//! |---|---|---|---|
//! | 0 | 4 | u32 | owning node; all ones if the cell is free |
//! | 4 | 4 | u32 | next cell of the owner: block * 127 + place, 0 if none |
//! | 8 | 2 | u16 | generation of the owner |
//! | 10 | 6 * 8 | u32, u16 | heap tids; offset 0 is an empty place |
//! | 58 | 4 | u32 | number; smaller than that of the cell before in the chain |
//! | 62 | 2 | - | 0 |

use super::bytes::{get_u16, get_u32, put_u16, put_u32};
use super::{BlockNumber, HeapTid, Kind, NodeId, Page, PageError, expect};

/// Cells of a page.
pub const CELLS: usize = 127;
/// Tids of a cell.
pub const CELL_TIDS: usize = 8;
/// Number of a chain's first cell. There are two thousand million above it, for cells that come in front, and below.
pub const FIRST_NUMBER: u32 = 1 << 31;
const CELL_BYTES: usize = 64;
const HEADER_BYTES: usize = 8;
const _: () = assert!(HEADER_BYTES + CELLS * CELL_BYTES <= super::BODY_BYTES);
const NUMBER: usize = 10 + 6 * CELL_TIDS;
const _: () = assert!(NUMBER + 4 <= CELL_BYTES);
const CELLS_U32: u32 = 127;
const CAPACITY: u16 = 127;

/// A cell's fixed place; never 0, as block 0 is the metapage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CellId(pub u32);

impl CellId {
    /// Page of the cell.
    #[must_use]
    pub fn block(self) -> BlockNumber {
        BlockNumber(self.0 / CELLS_U32)
    }

    /// Place within the page.
    #[must_use]
    pub fn place(self) -> usize {
        (self.0 % CELLS_U32) as usize
    }

    /// The cell at a place; `None` beyond 2^32 cells.
    #[must_use]
    pub fn at(block: BlockNumber, place: usize) -> Option<Self> {
        let id = u64::from(block.0) * CELLS as u64 + place as u64;
        u32::try_from(id).ok().map(CellId)
    }
}

/// A cell, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The node whose rows these are, [`NodeId::NONE`] if the cell is free.
    pub owner: NodeId,
    /// Next cell of the same owner, 0 if none.
    pub next: u32,
    /// The owner's generation when the cell was handed out.
    pub generation: u16,
    /// Smaller than that of the cell before.
    pub number: u32,
    /// The rows; invalid tids are empty places.
    pub tids: [HeapTid; CELL_TIDS],
}

impl Cell {
    /// A cell that nobody owns.
    pub const FREE: Cell =
        Cell { owner: NodeId::NONE, next: 0, generation: 0, number: 0, tids: [HeapTid::INVALID; CELL_TIDS] };

    /// Whether the cell belongs to the node as it was at that generation.
    #[must_use]
    pub fn is_of(&self, owner: NodeId, generation: u16) -> bool {
        self.owner == owner && self.generation == generation
    }

    /// Whether it holds no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tids.iter().all(|tid| !tid.is_valid())
    }

    /// An empty place among its rows.
    #[must_use]
    pub fn empty_place(&self) -> Option<usize> {
        self.tids.iter().position(|tid| !tid.is_valid())
    }
}

/// Makes `page` a tid page with free cells only.
pub fn init(page: &mut Page, epoch: u16) {
    super::init(page, Kind::Tids, CAPACITY, epoch);
    for place in 0..CELLS {
        set(page, place, &Cell::FREE);
    }
}

/// Checks that this is a tid page.
///
/// # Errors
/// [`PageError`] if not.
pub fn check(page: &Page) -> Result<(), PageError> {
    expect(page, Kind::Tids, CAPACITY)
}

/// Next page of the list of pages with free cells, and whether this page is in it.
#[must_use]
pub fn free_link(page: &Page) -> (u32, bool) {
    (get_u32(page, 0), get_u16(page, 4) != 0)
}

/// Sets what [`free_link`] reads.
pub fn set_free_link(page: &mut Page, next: u32, listed: bool) {
    put_u32(page, 0, next);
    put_u16(page, 4, listed.into());
}

/// A free cell of the page.
#[must_use]
pub fn free_place(page: &Page) -> Option<usize> {
    (0..CELLS).find(|&place| get(page, place).owner == NodeId::NONE)
}

/// The cell at a place.
#[must_use]
pub fn get(page: &Page, place: usize) -> Cell {
    let at = HEADER_BYTES + place * CELL_BYTES;
    let tid =
        |i: usize| HeapTid { block: get_u32(page, at + 10 + 6 * i), offset: get_u16(page, at + 14 + 6 * i) };
    Cell {
        owner: NodeId(get_u32(page, at)),
        next: get_u32(page, at + 4),
        generation: get_u16(page, at + 8),
        number: get_u32(page, at + NUMBER),
        tids: std::array::from_fn(tid),
    }
}

/// Replaces the cell at a place.
pub fn set(page: &mut Page, place: usize, cell: &Cell) {
    let at = HEADER_BYTES + place * CELL_BYTES;
    put_u32(page, at, cell.owner.0);
    put_u32(page, at + 4, cell.next);
    put_u16(page, at + 8, cell.generation);
    put_u32(page, at + NUMBER, cell.number);
    for (i, tid) in cell.tids.iter().enumerate() {
        put_u32(page, at + 10 + 6 * i, tid.block);
        put_u16(page, at + 14 + 6 * i, tid.offset);
    }
}

#[cfg(test)]
mod tests {
    use super::super::PAGE_BYTES;
    use super::*;

    #[test]
    fn cells_round_trip() {
        let mut page = [0; PAGE_BYTES];
        init(&mut page, 0);
        assert_eq!(check(&page), Ok(()));
        assert_eq!(free_place(&page), Some(0));
        let cell = |i: usize| Cell {
            owner: NodeId(u32::try_from(i).unwrap()),
            next: 5,
            generation: 7,
            number: 1 << 30,
            tids: std::array::from_fn(|k| HeapTid { block: (i * k) as u32, offset: k as u16 }),
        };
        for place in 0..CELLS {
            set(&mut page, place, &cell(place));
        }
        assert!((0..CELLS).all(|place| get(&page, place) == cell(place)));
        assert_eq!(free_place(&page), None);
        set_free_link(&mut page, 99, true);
        assert_eq!(free_link(&page), (99, true));
        assert_eq!(get(&page, 0), cell(0));
    }

    #[test]
    fn ids_and_places_correspond() {
        let id = CellId::at(BlockNumber(3), 126).unwrap();
        assert_eq!((id.block(), id.place()), (BlockNumber(3), 126));
        assert_eq!(CellId::at(BlockNumber(u32::MAX), 0), None);
    }
}
