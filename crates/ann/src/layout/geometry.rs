//! How large the parts of a page are, from the dimension alone.
//!
//! A node never spans pages, so the width of its neighbor codes is whatever lets the pages fill up: the
//! most nodes per page whose codes still cover 11/16 of the dimensions, 96 at least (or all) and
//! `max(256, dim / 3)` at most, then the widest codes for that many nodes. Measured at 512 dimensions:
//! coding half of the dimensions costs 35 % more hops, no more CPU time, and halves the index. From 65 to
//! 320 dimensions, coding 3 in 4 fits one more node on a page and costs a tenth of CPU time; coding 5 in 8
//! costs up to nine tenths (README.md has the table).

use super::{BODY_BYTES, BlockNumber, MAX_DEGREE, NodeId, PageError, check};

/// The largest dimension of an indexed vector; one more would leave too little of the page to codes.
pub const MAX_DIM: usize = 4000;
/// Codes cover at most this many dimensions: sums of 256 one-byte table entries fit 16 bits.
pub const MAX_CODE_DIM: usize = 1024;
/// Dimensions are padded in these steps: a 64-byte register of 8-bit elements.
pub const DIM_STEP: usize = 64;
/// Codes of fewer dimensions than [`FINE_CODE_DIM`] are sized in these steps: a byte of a code, 32 bytes of a
/// FastScan block. The last step of the AVX-512 kernel is a half one then, which costs less than what steps
/// of 16 would leave unused: with 104 of 128 dimensions instead of 96 an estimate's variance is a seventh less.
pub const CODE_STEP: usize = 8;
/// From here on codes are sized in steps of [`DIM_STEP`].
pub const FINE_CODE_DIM: usize = 256;
/// Bytes of a node before its vector.
pub const NODE_HEADER_BYTES: usize = 32;
/// Bytes of an edge besides its code: id, two factors, distance.
pub const EDGE_BYTES: usize = 4 + 2 + 2 + 2;
/// Entries that share one FastScan block.
pub const ENTRY_BLOCK: usize = 32;
/// Bytes of an entry page before its blocks.
pub const ENTRY_HEADER_BYTES: usize = 8;

/// Sizes of an index for vectors of one dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    dim: usize,
    padded_dim: usize,
    code_dim: usize,
    slots: usize,
}

/// A dimension that cannot be indexed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GeometryError {
    /// There is nothing to compare.
    #[error("cannot index a vector of 0 dimensions")]
    Empty,
    /// A node would not fit a page.
    #[error("cannot index vectors of {dim} dimensions, the limit is {MAX_DIM}")]
    TooManyDimensions {
        /// The dimension asked for.
        dim: usize,
    },
}

impl Geometry {
    /// The geometry of vectors with `dim` elements.
    ///
    /// # Errors
    /// [`GeometryError`] unless `1 <= dim <= MAX_DIM`.
    pub fn new(dim: usize) -> Result<Self, GeometryError> {
        match dim {
            0 => return Err(GeometryError::Empty),
            1..=MAX_DIM => {}
            _ => return Err(GeometryError::TooManyDimensions { dim }),
        }
        let padded_dim = dim.next_multiple_of(DIM_STEP);
        let widest = padded_dim.min(MAX_CODE_DIM);
        let fitting = |slots: usize| {
            let code_bytes = (BODY_BYTES / slots).checked_sub(fixed_bytes(padded_dim))?;
            let code_dim = code_bytes * 8 / MAX_DEGREE;
            let step = if code_dim < FINE_CODE_DIM { CODE_STEP } else { DIM_STEP };
            Some((code_dim / step * step).min(widest))
        };
        let wanted = (padded_dim * 11 / 16).max(96).min(256.max(dim / 3)).min(widest);
        let (slots, code_dim) = (1..=16)
            .rev()
            .filter_map(|slots| Some((slots, fitting(slots)?)))
            .find(|&(slots, code_dim)| code_dim >= wanted || slots == 1)
            .expect("one node fits a page at MAX_DIM");
        Ok(Self { dim, padded_dim, code_dim, slots })
    }

    /// The geometry that the metapage names: one that fits the page, not only what this release would choose, as
    /// an earlier one chose other widths.
    pub(crate) fn checked(dim: u16, padded: u16, code: u16, slots: u8) -> Result<Self, PageError> {
        check("dim", dim.into(), 1, MAX_DIM as u64)?;
        let usual = Self::new(dim.into()).expect("checked above");
        check("padded_dim", padded.into(), usual.padded_dim as u64, usual.padded_dim as u64)?;
        let widest = usual.padded_dim.min(MAX_CODE_DIM);
        check("code_dim", code.into(), CODE_STEP as u64, widest as u64)?;
        check("code_dim % 8", u64::from(code) % CODE_STEP as u64, 0, 0)?;
        let geometry = Self { code_dim: code.into(), slots: slots.into(), ..usual };
        check("slots", slots.into(), 1, (BODY_BYTES / geometry.node_bytes()) as u64)?;
        Ok(geometry)
    }

    /// Elements of a vector as the user sees it.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Elements of a rotated vector: `dim` rounded up to 64.
    #[must_use]
    pub fn padded_dim(&self) -> usize {
        self.padded_dim
    }

    /// Leading rotated dimensions that neighbor codes cover, a multiple of 8.
    #[must_use]
    pub fn code_dim(&self) -> usize {
        self.code_dim
    }

    /// Nodes per page.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Bytes of a FastScan block of 32 codes.
    #[must_use]
    pub fn code_block_bytes(&self) -> usize {
        MAX_DEGREE * self.code_dim / 8
    }

    /// Bytes of a node.
    #[must_use]
    pub fn node_bytes(&self) -> usize {
        fixed_bytes(self.padded_dim) + self.code_block_bytes()
    }

    /// Bytes of 32 entries of the entry table: ids, two factors each, codes.
    #[must_use]
    pub fn entry_block_bytes(&self) -> usize {
        ENTRY_BLOCK * 8 + self.code_block_bytes()
    }

    /// Entries per page of the entry table.
    #[must_use]
    pub fn entries_per_page(&self) -> usize {
        (BODY_BYTES - ENTRY_HEADER_BYTES) / self.entry_block_bytes() * ENTRY_BLOCK
    }

    /// Page of a node.
    #[must_use]
    pub fn block_of(&self, id: NodeId) -> BlockNumber {
        BlockNumber(id.0 / self.slots_u32())
    }

    /// Place of a node within its page.
    #[must_use]
    pub fn slot_of(&self, id: NodeId) -> usize {
        id.0 as usize % self.slots
    }

    /// Id of the node at a place; `None` behind the last of the 2^32 - 1 ids.
    #[must_use]
    pub fn node_id(&self, block: BlockNumber, slot: usize) -> Option<NodeId> {
        debug_assert!(slot < self.slots);
        let id = u64::from(block.0) * self.slots as u64 + slot as u64;
        u32::try_from(id).ok().map(NodeId).filter(|&id| id != NodeId::NONE)
    }

    fn slots_u32(&self) -> u32 {
        u32::try_from(self.slots).expect("at most 16")
    }
}

/// Bytes of a node apart from its codes.
fn fixed_bytes(padded_dim: usize) -> usize {
    NODE_HEADER_BYTES + padded_dim + MAX_DEGREE * EDGE_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frozen_geometries() {
        // dim, code_dim, node bytes, nodes per page: changing any of these changes the format.
        for (dim, code, bytes, slots) in [
            (1, 64, 672, 12),
            (64, 64, 672, 12),
            (65, 104, 896, 9),
            (128, 104, 896, 9),
            (192, 152, 1152, 7),
            (256, 184, 1344, 6),
            (320, 240, 1632, 5),
            (321, 320, 2016, 4),
            (384, 320, 2016, 4),
            (512, 256, 1888, 4),
            (768, 384, 2656, 3),
            (769, 384, 2720, 3),
            (784, 384, 2720, 3),
            (1024, 640, 3936, 2),
            (1536, 512, 3936, 2),
            (2048, 1024, 6496, 1),
            (3072, 1024, 7520, 1),
            (4000, 896, 7968, 1),
        ] {
            let g = Geometry::new(dim).unwrap();
            assert_eq!((g.code_dim(), g.node_bytes(), g.slots()), (code, bytes, slots), "{dim} dimensions");
        }
    }

    #[test]
    fn pages_of_earlier_widths_are_read() {
        // What release 0.1.0 chose.
        for (dim, code, slots) in [(128, 128, 8), (192, 192, 6), (256, 256, 5), (320, 256, 4)] {
            let g = Geometry::checked(dim, dim, code, slots).unwrap();
            assert_eq!((g.code_dim(), g.slots()), (code.into(), slots.into()), "{dim} dimensions");
            assert_ne!(g, Geometry::new(dim.into()).unwrap(), "then this tests nothing");
        }
        for (padded, code, slots) in
            [(256, 256, 6), (256, 260, 5), (256, 320, 5), (256, 0, 5), (256, 256, 0), (192, 184, 6)]
        {
            assert!(Geometry::checked(256, padded, code, slots).is_err(), "{padded} {code} {slots}");
        }
    }

    #[test]
    fn every_dimension_fits() {
        for dim in 1..=MAX_DIM {
            let g = Geometry::new(dim).unwrap();
            assert!(g.slots() * g.node_bytes() <= BODY_BYTES, "{dim} dimensions");
            let widest = g.padded_dim().min(MAX_CODE_DIM);
            assert!(
                (256.min(96.max(g.padded_dim() * 11 / 16)).min(widest)..=widest).contains(&g.code_dim()),
                "{dim} dimensions"
            );
            assert_eq!(g.code_dim() % if g.code_dim() < FINE_CODE_DIM { CODE_STEP } else { DIM_STEP }, 0);
            assert!(g.entries_per_page() >= ENTRY_BLOCK);
        }
        assert_eq!(Geometry::new(0), Err(GeometryError::Empty));
        assert_eq!(Geometry::new(MAX_DIM + 1), Err(GeometryError::TooManyDimensions { dim: MAX_DIM + 1 }));
    }

    #[test]
    fn ids_and_places_correspond() {
        let g = Geometry::new(512).unwrap();
        let id = g.node_id(BlockNumber(10), 3).unwrap();
        assert_eq!((id, g.block_of(id), g.slot_of(id)), (NodeId(43), BlockNumber(10), 3));
        assert_eq!(g.node_id(BlockNumber(u32::MAX), 0), None);
        assert_eq!(g.node_id(BlockNumber(u32::MAX / 4), 3), None, "the id that means none");
    }
}
