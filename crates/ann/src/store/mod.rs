//! How the index sees storage.
//!
//! The server implements [`PageStore`] on its buffer manager and write-ahead log, [`mem::MemStore`] in
//! memory. What the algorithms may rely on, and owe:
//!
//! - A read is a share lock on one page; at most one is held at a time, and none when a change is opened.
//! - A change locks up to four pages exclusively, in ascending order of block number, and hands out copies.
//!   It takes effect at `commit`, wholly or, after a crash, not at all. Dropping it abandons it.
//! - Changes survive in the order of their commits: after a crash a prefix of them is there.
//! - A page that was added and never committed reads as zeros.
//! - The free-space map is a hint: it may be lost, and may name a page that is full by now.

pub mod mem;

use crate::layout::{BlockNumber, Page};
use std::ops::Deref;

/// Most pages of one change: the limit of one generic WAL record.
pub const MAX_CHANGE_PAGES: usize = 4;

/// Pages of one index.
pub trait PageStore {
    /// What can go wrong with storage itself.
    type Error: std::error::Error + 'static;
    /// A page under a share lock, released when dropped.
    type Read<'a>: Deref<Target = Page>
    where
        Self: 'a;
    /// See [`Change`].
    type Change<'a>: Change<Error = Self::Error>
    where
        Self: 'a;

    /// Number of pages, at this moment.
    ///
    /// # Errors
    /// Those of the storage.
    fn block_count(&self) -> Result<u32, Self::Error>;

    /// Locks a page for reading. The number may come from a damaged page: one beyond the end is an error.
    ///
    /// # Errors
    /// Those of the storage.
    fn read(&self, block: BlockNumber) -> Result<Self::Read<'_>, Self::Error>;

    /// Says that these pages will be read soon, in this order.
    fn prefetch(&self, blocks: &[BlockNumber]);

    /// Opens a change of at most four pages.
    ///
    /// # Errors
    /// Those of the storage.
    fn change(&self) -> Result<Self::Change<'_>, Self::Error>;

    /// Called once per unit of work, without any lock held. An error ends the operation.
    ///
    /// # Errors
    /// If the operation should end.
    fn check_interrupts(&self) -> Result<(), Self::Error>;

    /// A page that may have a free node slot.
    fn free_block(&self) -> Option<BlockNumber>;

    /// Remembers whether a page has a free node slot.
    fn record_free(&self, block: BlockNumber, free: bool);
}

/// A change of up to four pages that takes effect as one.
pub trait Change {
    /// As [`PageStore::Error`].
    type Error: std::error::Error + 'static;

    /// The working copy of a page, which is locked exclusively the first time. First times must come in
    /// ascending order of block number.
    ///
    /// # Errors
    /// Those of the storage.
    fn page(&mut self, block: BlockNumber) -> Result<&mut Page, Self::Error>;

    /// Adds a page of zeros at the end and locks it; it comes after all others in locking order.
    ///
    /// # Errors
    /// Those of the storage.
    fn extend(&mut self) -> Result<BlockNumber, Self::Error>;

    /// Makes the copies the pages' contents, in one record of the log.
    ///
    /// # Errors
    /// Those of the storage; nothing is changed then.
    fn commit(self) -> Result<(), Self::Error>;
}

/// Takes the pages of a new index, from block 0 on. Nobody else sees the index yet.
pub trait PageSink {
    /// As [`PageStore::Error`].
    type Error: std::error::Error + 'static;

    /// Appends a page.
    ///
    /// # Errors
    /// Those of the storage.
    fn append(&mut self, page: &Page) -> Result<(), Self::Error>;
}
