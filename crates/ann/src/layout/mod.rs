//! What the bytes of a page mean: one module for each kind of page, each with its table.
//!
//! A page here is what lies after the 24-byte page header of the server: [`PAGE_BYTES`] bytes, the last
//! eight of which are the opaque area that distinguishes the kinds. All integers are little-endian and
//! read by value, so nothing depends on alignment. Disk bytes are input: decoding answers with a
//! [`PageError`], never with a panic.
//!
//! | offset (from the end) | width | type | opaque area |
//! |---|---|---|---|
//! | -8 | 1 | [`Kind`] | what the page holds; 0 on a page that was never written |
//! | -7 | 1 | u8 | format version, [`FORMAT_VERSION`] |
//! | -6 | 2 | u16 | number of slots, blocks or cells that fit, as the writer's geometry had it |
//! | -4 | 2 | u16 | epoch: pages of an earlier one are retired, see `graph/train.rs`; 0 on the metapage |
//! | -2 | 2 | u16 | [`PAGE_ID`], where tools that print pages look for the access method |

pub mod bf16;
pub mod bounds;
pub mod bytes;
pub mod entry;
pub mod geometry;
pub mod meta;
pub mod node;
pub mod tids;
pub mod vectors;

use bytes::{get_u16, put_u16};
pub use geometry::{Geometry, GeometryError, MAX_DIM};

/// Bytes of a page that belong to the index: 8,192 less the server's page header.
pub const PAGE_BYTES: usize = 8192 - 24;
/// Bytes of a page before the opaque area.
pub const BODY_BYTES: usize = PAGE_BYTES - OPAQUE_BYTES;
/// Bytes of the opaque area.
pub const OPAQUE_BYTES: usize = 8;
/// Version of every page kind that is written again. Readers accept the earlier ones as well: an index keeps its own.
pub const FORMAT_VERSION: u8 = 2;
/// The last two bytes of every page of an `ann` index.
pub const PAGE_ID: u16 = 0xFFA1;
/// Out-edges of a node. FastScan blocks are 32 codes wide, so fewer would save no code bytes.
pub const MAX_DEGREE: usize = 32;

/// The bytes of one page.
pub type Page = [u8; PAGE_BYTES];

/// Number of a page within the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockNumber(pub u32);

/// A node's fixed place: `block * slots per page + slot`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

impl NodeId {
    /// The id that no node has: the end of a list, a hole in a table.
    pub const NONE: NodeId = NodeId(u32::MAX);
}

/// Where the row lies in the table: block and one-based offset. Offset 0 is no row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HeapTid {
    /// Block number within the table.
    pub block: u32,
    /// Line pointer within the block, from 1.
    pub offset: u16,
}

impl HeapTid {
    /// No row.
    pub const INVALID: HeapTid = HeapTid { block: 0, offset: 0 };

    /// Whether this names a row.
    #[must_use]
    pub fn is_valid(self) -> bool {
        self.offset != 0
    }
}

/// What a page holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Never written: the relation was extended and the writer died.
    New,
    /// Block 0.
    Meta,
    /// Entry table.
    Entry,
    /// Graph nodes.
    Node,
    /// Heap tids of rows that share a node.
    Tids,
    /// Vectors of the basis, or leaders.
    Vectors,
    /// Bounds of a key column.
    Bounds,
    /// Of an earlier epoch: searches that began then may still read it, nobody else does.
    Retired,
}

impl Kind {
    /// What a page of this kind holds, for messages.
    fn words(self) -> &'static str {
        match self {
            Kind::New => "nothing yet",
            Kind::Meta => "metadata",
            Kind::Entry => "entries",
            Kind::Node => "nodes",
            Kind::Tids => "tids of rows",
            Kind::Vectors => "vectors",
            Kind::Bounds => "bounds of a key column",
            Kind::Retired => "nothing current",
        }
    }

    fn code(self) -> u8 {
        match self {
            Kind::New => 0,
            Kind::Meta => 1,
            Kind::Entry => 2,
            Kind::Node => 3,
            Kind::Tids => 4,
            Kind::Vectors => 5,
            Kind::Bounds => 6,
            Kind::Retired => unreachable!("no page is made so"),
        }
    }
}

/// A page that does not hold what its reader expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// The last bytes are not ours.
    #[error("page id is {found:#06x}, expected {PAGE_ID:#06x}")]
    NotOurs {
        /// The two bytes where the page id belongs.
        found: u16,
    },
    /// Written by a later release.
    #[error("page format version {found} is not supported, the newest known is {FORMAT_VERSION}")]
    Version {
        /// The version on the page.
        found: u8,
    },
    /// An unknown kind.
    #[error("page kind {found} is unknown")]
    UnknownKind {
        /// The code on the page.
        found: u8,
    },
    /// Another kind of page than the link to it promised.
    #[error("page holds {}, expected {}", found.words(), expected.words())]
    Kind {
        /// Kind on the page.
        found: Kind,
        /// Kind that the reader followed a link to.
        expected: Kind,
    },
    /// A count, size or number outside its range.
    #[error("field \"{field}\" is {found}, and must be {low} to {high}")]
    Field {
        /// Name of the field in the page's table.
        field: &'static str,
        /// Value on the page.
        found: u64,
        /// Smallest allowed value.
        low: u64,
        /// Largest allowed value.
        high: u64,
    },
    /// The first bytes of block 0 are not an `ann` metapage.
    #[error("metapage magic is {found:#010x}")]
    Magic {
        /// The bytes found.
        found: u32,
    },
    /// A number that must be finite, or a bound, is not.
    #[error("field \"{field}\" is not a valid number")]
    NotFinite {
        /// Name of the field in the page's table.
        field: &'static str,
    },
}

/// A page of zeros with its opaque area filled in.
#[must_use]
pub fn new_page(kind: Kind, capacity: u16) -> Page {
    let mut page = [0; PAGE_BYTES];
    init(&mut page, kind, capacity, 0);
    page
}

/// Makes `page` an empty page of a kind.
pub fn init(page: &mut Page, kind: Kind, capacity: u16, epoch: u16) {
    page.fill(0);
    page[BODY_BYTES] = kind.code();
    page[BODY_BYTES + 1] = FORMAT_VERSION;
    put_u16(page, BODY_BYTES + 2, capacity);
    put_u16(page, BODY_BYTES + 4, epoch);
    put_u16(page, BODY_BYTES + 6, PAGE_ID);
}

/// What a page holds.
///
/// # Errors
/// [`PageError`] if it is no page of ours or of a later version.
pub fn kind(page: &Page) -> Result<Kind, PageError> {
    let (id, version) = (get_u16(page, BODY_BYTES + 6), page[BODY_BYTES + 1]);
    match page[BODY_BYTES] {
        0 if id == 0 && version == 0 => Ok(Kind::New),
        _ if id != PAGE_ID => Err(PageError::NotOurs { found: id }),
        _ if version == 0 || version > FORMAT_VERSION => Err(PageError::Version { found: version }),
        1 => Ok(Kind::Meta),
        2 => Ok(Kind::Entry),
        3 => Ok(Kind::Node),
        4 => Ok(Kind::Tids),
        5 => Ok(Kind::Vectors),
        6 => Ok(Kind::Bounds),
        found => Err(PageError::UnknownKind { found }),
    }
}

/// What a page holds in an epoch: pages of others are [`Kind::Retired`].
///
/// # Errors
/// As [`kind`].
pub fn kind_in(page: &Page, epoch: u16) -> Result<Kind, PageError> {
    let found = kind(page)?;
    let has_epoch = !matches!(found, Kind::New | Kind::Meta);
    Ok(if has_epoch && get_u16(page, BODY_BYTES + 4) != epoch { Kind::Retired } else { found })
}

/// Checks the kind and the capacity of a page.
///
/// # Errors
/// [`PageError`] if the page is of another kind, or its writer had another geometry.
pub fn expect(page: &Page, expected: Kind, capacity: u16) -> Result<(), PageError> {
    let found = kind(page)?;
    if found != expected {
        return Err(PageError::Kind { found, expected });
    }
    check("capacity", get_u16(page, BODY_BYTES + 2).into(), capacity.into(), capacity.into())
}

/// Checks a field against its range.
pub(crate) fn check(field: &'static str, found: u64, low: u64, high: u64) -> Result<(), PageError> {
    if (low..=high).contains(&found) { Ok(()) } else { Err(PageError::Field { field, found, low, high }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_apart() {
        for k in [Kind::Meta, Kind::Entry, Kind::Node, Kind::Tids, Kind::Vectors] {
            let page = new_page(k, 7);
            assert_eq!(kind(&page), Ok(k));
            assert_eq!(expect(&page, k, 7), Ok(()));
            assert!(matches!(expect(&page, k, 8), Err(PageError::Field { field: "capacity", found: 7, .. })));
        }
        assert_eq!(kind(&[0; PAGE_BYTES]), Ok(Kind::New));
        assert!(matches!(expect(&new_page(Kind::Node, 1), Kind::Meta, 1), Err(PageError::Kind { .. })));
    }

    #[test]
    fn foreign_and_future_pages_are_refused() {
        let mut page = new_page(Kind::Node, 1);
        page[BODY_BYTES + 1] = FORMAT_VERSION + 1;
        assert_eq!(kind(&page), Err(PageError::Version { found: FORMAT_VERSION + 1 }));
        page[PAGE_BYTES - 1] = 0;
        assert!(matches!(kind(&page), Err(PageError::NotOurs { .. })));
        let mut page = new_page(Kind::Node, 1);
        assert_eq!(kind_in(&page, 0), Ok(Kind::Node));
        assert_eq!(kind_in(&page, 1), Ok(Kind::Retired));
        page[BODY_BYTES] = 99;
        assert_eq!(kind(&page), Err(PageError::UnknownKind { found: 99 }));
    }
}
