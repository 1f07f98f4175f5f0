//! An index that was opened: metapage and entry table in memory.

use crate::layout::entry;
use crate::layout::meta::{Meta, Stamp};
use crate::layout::{BlockNumber, MAX_DEGREE, NodeId, PageError};
use crate::space::{Query, Space};
use crate::store::PageStore;

/// What can go wrong while pages are read or changed.
#[derive(Debug, thiserror::Error)]
pub enum AccessError<E: std::error::Error + 'static> {
    /// The storage failed.
    #[error(transparent)]
    Store(E),
    /// A page is damaged.
    #[error("block {} of the index is damaged: {error}", block.0)]
    Damaged {
        /// The page.
        block: BlockNumber,
        /// What is wrong with it.
        error: PageError,
    },
    /// A chain of pages or cells returns to itself.
    #[error("chain of pages at block {} has no end", block.0)]
    EndlessChain {
        /// Where it was noticed.
        block: BlockNumber,
    },
    /// All 2^32 - 1 node ids, or all cells for further rows, are in use.
    #[error("the index is full")]
    Full,
}

/// Names the page of a page error.
pub(crate) fn damaged<E: std::error::Error>(block: BlockNumber) -> impl FnOnce(PageError) -> AccessError<E> {
    move |error| AccessError::Damaged { block, error }
}

/// One entry in so many may have changed before a search wants the table anew.
const STALE_SHARE: u32 = 64;

/// The entry table in memory.
#[derive(Clone, Debug, Default)]
struct EntryTable {
    pages: Vec<BlockNumber>,
    blocks: Vec<EntryBlock>,
    codes: Vec<u8>,
}

#[derive(Clone, Debug)]
struct EntryBlock {
    ids: [NodeId; MAX_DEGREE],
    adds: [f32; MAX_DEGREE],
    scales: [f32; MAX_DEGREE],
}

/// Metapage and entry table of an index. Cheap to keep from scan to scan: see [`Index::refresh`].
#[derive(Clone, Debug)]
pub struct Index {
    pub(crate) meta: Meta,
    pub(crate) space: Space,
    entries: EntryTable,
}

impl Index {
    /// Reads the metapage and the entry table: 2 to about 90 pages.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn open<S: PageStore>(store: &S) -> Result<Self, AccessError<S::Error>> {
        let meta = read_meta(store)?;
        let space = Space::new(&meta);
        let entries = load_entries(store, &meta)?;
        Ok(Self { meta, space, entries })
    }

    /// Reads one page, and the entry table again if it has changed, or everything if the index was built anew.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn refresh<S: PageStore>(&mut self, store: &S) -> Result<(), AccessError<S::Error>> {
        match self.changes(store)? {
            Some(0) => {}
            Some(_) => {
                self.meta = read_meta(store)?;
                self.entries = load_entries(store, &self.meta)?;
            }
            None => *self = Self::open(store)?,
        }
        Ok(())
    }

    /// As [`Index::refresh`], but bears with an entry table of which little has changed.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn refresh_if_stale<S: PageStore>(&mut self, store: &S) -> Result<(), AccessError<S::Error>> {
        if self.is_searchable(store)? { Ok(()) } else { self.refresh(store) }
    }

    /// Reads one page, and says whether a search may start from the entries at hand: if few of them have changed
    /// since. Slots of some may hold other vectors by now; a search meets such links anyway.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn is_searchable<S: PageStore>(&self, store: &S) -> Result<bool, AccessError<S::Error>> {
        let bearable = self.meta.entry_count / STALE_SHARE;
        Ok(self.changes(store)?.is_some_and(|changes| changes <= bearable))
    }

    fn changes<S: PageStore>(&self, store: &S) -> Result<Option<u32>, AccessError<S::Error>> {
        let page = store.read(BlockNumber(0)).map_err(AccessError::Store)?;
        let stamp = Meta::stamp(&page).map_err(damaged(BlockNumber(0)))?;
        Ok(stamp.changes_since(Stamp::of(&self.meta)))
    }

    /// The space of its vectors.
    #[must_use]
    pub fn space(&self) -> &Space {
        &self.space
    }

    /// The metapage as it was when last read.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The nodes that searches may start from.
    pub fn entry_points(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.entries.blocks.iter().flat_map(|b| b.ids).filter(|&id| id != NodeId::NONE)
    }

    /// As [`Index::entry_points`], with each entry's number in the table.
    pub(crate) fn entry_points_with_place(&self) -> impl Iterator<Item = (usize, NodeId)> + '_ {
        self.entries.blocks.iter().flat_map(|b| b.ids).enumerate().filter(|&(_, id)| id != NodeId::NONE)
    }

    /// Number of an entry that a node may take over, if there is a hole before the last entry.
    pub(crate) fn entry_hole(&self) -> Option<usize> {
        let ids = self.entries.blocks.iter().flat_map(|b| b.ids);
        ids.take(self.meta.entry_count as usize).position(|id| id == NodeId::NONE)
    }

    /// Page of an entry and its place there. All pages but the last are full.
    pub(crate) fn entry_place(&self, number: usize) -> Option<(BlockNumber, usize)> {
        let per_page = self.space.geometry.entries_per_page();
        Some((*self.entries.pages.get(number / per_page)?, number % per_page))
    }

    /// Calls `each` with the estimated scores of all entries, a block at a time. Holes have ids of none.
    pub(crate) fn score_entries(
        &self,
        query: &Query,
        mut each: impl FnMut(&[f32; MAX_DEGREE], &[NodeId; MAX_DEGREE]),
    ) {
        let base = query.center_score();
        let codes = self.entries.codes.chunks_exact(self.space.geometry.code_block_bytes());
        for (block, codes) in self.entries.blocks.iter().zip(codes) {
            each(&query.estimates(base, &block.adds, &block.scales, codes), &block.ids);
        }
    }
}

pub(crate) fn read_meta<S: PageStore>(store: &S) -> Result<Meta, AccessError<S::Error>> {
    let page = store.read(BlockNumber(0)).map_err(AccessError::Store)?;
    Meta::decode(&page).map_err(damaged(BlockNumber(0)))
}

fn load_entries<S: PageStore>(store: &S, meta: &Meta) -> Result<EntryTable, AccessError<S::Error>> {
    let g = &meta.geometry;
    let mut table = EntryTable::default();
    let pages = store.block_count().map_err(AccessError::Store)?;
    let (mut next, mut seen) = (meta.entry_first, 0);
    while next != 0 {
        let block = BlockNumber(next);
        seen += 1;
        if seen > pages {
            return Err(AccessError::EndlessChain { block });
        }
        store.check_interrupts().map_err(AccessError::Store)?;
        let page = store.read(block).map_err(AccessError::Store)?;
        let (following, count) = entry::header(&page, g).map_err(damaged(block))?;
        table.pages.push(block);
        for start in (0..count).step_by(MAX_DEGREE) {
            let mut b = EntryBlock {
                ids: [NodeId::NONE; MAX_DEGREE],
                adds: [0.0; MAX_DEGREE],
                scales: [0.0; MAX_DEGREE],
            };
            for i in 0..MAX_DEGREE.min(count - start) {
                let e = entry::get(&page, g, start + i);
                (b.ids[i], b.adds[i], b.scales[i]) = (e.id, e.add, e.scale);
            }
            table.blocks.push(b);
            table.codes.extend_from_slice(entry::codes(&page, g, start));
        }
        next = following;
    }
    Ok(table)
}
