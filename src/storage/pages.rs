//! Reading and changing pages of an index.

use super::Relation;
use crate::error::index::no_such_page;
use crate::fault;
use crate::server::version;
use imgvec_ann::layout::{BlockNumber, OPAQUE_BYTES, PAGE_BYTES, Page};
use imgvec_ann::store::{Change, MAX_CHANGE_PAGES, PageStore};
use pgrx::pg_sys;
use std::cell::Cell;
use std::convert::Infallible;
use std::ops::Deref;
use std::thread::panicking;

const MAIN: pg_sys::ForkNumber::Type = pg_sys::ForkNumber::MAIN_FORKNUM;
const BLOCK_BYTES: usize = pg_sys::BLCKSZ as usize;
/// Bytes of the server's page header.
const HEADER_BYTES: usize = BLOCK_BYTES - PAGE_BYTES;
const _: () = assert!(HEADER_BYTES == std::mem::offset_of!(pg_sys::PageHeaderData, pd_linp));
const _: () = assert!(MAX_CHANGE_PAGES == pg_sys::MAX_GENERIC_XLOG_PAGES as usize);

/// Who asks for pages.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A query or an insert.
    Normal,
    /// VACUUM: its buffers, its delays, and it propagates free space itself.
    Vacuum(pg_sys::BufferAccessStrategy),
}

/// The pages of an index.
pub struct Pages<'a> {
    relation: Relation<'a>,
    mode: Mode,
    /// Whose rows a scan wants, or NULL: pages that have too little about them are refused.
    snapshot: pg_sys::Snapshot,
    /// What the free-space map said last: saying the same again is not worth a lock.
    known_free: Cell<Option<BlockNumber>>,
    /// Whether a page had to be fetched from outside the buffers: only then is it worth to name pages ahead.
    is_cold: Cell<bool>,
}

impl<'a> Pages<'a> {
    pub fn new(relation: Relation<'a>, mode: Mode) -> Self {
        let snapshot = std::ptr::null_mut();
        Self { relation, mode, snapshot, known_free: Cell::new(None), is_cold: Cell::new(false) }
    }

    /// The pages as a scan reads them.
    ///
    /// # Safety
    /// `snapshot` is NULL or stays valid as long as these pages are used.
    pub unsafe fn of_scan(relation: Relation<'a>, snapshot: pg_sys::Snapshot) -> Self {
        Self { snapshot, ..Self::new(relation, Mode::Normal) }
    }

    pub fn relation(&self) -> Relation<'a> {
        self.relation
    }

    fn strategy(&self) -> pg_sys::BufferAccessStrategy {
        match self.mode {
            Mode::Normal => std::ptr::null_mut(),
            Mode::Vacuum(strategy) => strategy,
        }
    }

    /// Pins a page that exists.
    fn pin(&self, block: BlockNumber) -> pg_sys::Buffer {
        // A damaged link leads anywhere, even to the number that would ask the server for a new page.
        if !self.relation.has_block(block.0) {
            no_such_page(self.relation, block).raise();
        }
        fault::point("read a page");
        // SAFETY: an open relation that has the block.
        unsafe {
            let misses = pg_sys::pgBufferUsage.shared_blks_read;
            let buffer = pg_sys::ReadBufferExtended(
                self.relation.as_raw(),
                MAIN,
                block.0,
                pg_sys::ReadBufferMode::RBM_NORMAL,
                self.strategy(),
            );
            self.is_cold.set(self.is_cold.get() || pg_sys::pgBufferUsage.shared_blks_read != misses);
            buffer
        }
    }
}

/// A pinned buffer under a lock of this process.
struct Locked(pg_sys::Buffer);

impl Locked {
    fn new(buffer: pg_sys::Buffer, mode: u32) -> Self {
        fault::point("lock a page");
        // SAFETY: the buffer is pinned and this process holds no lock on it.
        unsafe { pg_sys::LockBuffer(buffer, mode as _) };
        Self(buffer)
    }

    /// The page in the buffer.
    fn page(&self) -> pg_sys::Page {
        // SAFETY: a pinned buffer.
        unsafe { pg_sys::BufferGetPage(self.0) }
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        if !panicking() {
            // SAFETY: locked and pinned once by us; after an error the server releases both.
            unsafe { pg_sys::UnlockReleaseBuffer(self.0) }
        }
    }
}

/// The crate's part of a page.
///
/// # Safety
/// `page` points to a block of the server's size that nobody changes for the chosen lifetime.
unsafe fn body<'a>(page: pg_sys::Page) -> &'a Page {
    // SAFETY: the header and the body make up a block.
    unsafe { &*page.byte_add(HEADER_BYTES).cast::<Page>() }
}

/// As [`body`], to write.
///
/// # Safety
/// As for [`body`], and nobody else reads or writes it.
pub(super) unsafe fn body_mut<'a>(page: pg_sys::Page) -> &'a mut Page {
    // SAFETY: the header and the body make up a block.
    unsafe { &mut *page.byte_add(HEADER_BYTES).cast::<Page>() }
}

/// Writes the header of a page whose body is all data, up to the opaque area.
///
/// # Safety
/// `page` points to a block that nobody else reads or writes.
pub(super) unsafe fn init_header(page: pg_sys::Page) {
    // SAFETY: PageInit clears a block and fills in its header.
    unsafe {
        pg_sys::PageInit(page, BLOCK_BYTES, OPAQUE_BYTES);
        let header = page.cast::<pg_sys::PageHeaderData>();
        (*header).pd_lower = (*header).pd_upper;
    }
}

/// A page under a share lock.
pub struct PageRead<'a> {
    locked: Locked,
    page: &'a Page,
}

impl Deref for PageRead<'_> {
    type Target = Page;
    fn deref(&self) -> &Page {
        debug_assert!(self.locked.0 != 0);
        self.page
    }
}

impl PageStore for Pages<'_> {
    type Error = Infallible;
    type Read<'b>
        = PageRead<'b>
    where
        Self: 'b;
    type Change<'b>
        = PageChange<'b>
    where
        Self: 'b;

    fn block_count(&self) -> Result<u32, Infallible> {
        fault::point("count pages");
        Ok(self.relation.block_count(MAIN))
    }

    fn read(&self, block: BlockNumber) -> Result<PageRead<'_>, Infallible> {
        let locked = Locked::new(self.pin(block), pg_sys::BUFFER_LOCK_SHARE);
        // SAFETY: writers need the exclusive lock, which our share lock keeps off until the guard's end.
        let page = unsafe { body(locked.page()) };
        if !self.snapshot.is_null() {
            // SAFETY: of a scan that is under way; the page is locked. After an error the server unlocks it.
            unsafe { version::refuse_old_snapshot(self.snapshot, self.relation.as_raw(), locked.page()) };
        }
        Ok(PageRead { locked, page })
    }

    fn prefetch(&self, blocks: &[BlockNumber]) {
        if self.is_cold.get() {
            for block in blocks {
                // SAFETY: an open relation; blocks that do not exist are ignored.
                unsafe { pg_sys::PrefetchBuffer(self.relation.as_raw(), MAIN, block.0) };
            }
        }
    }

    fn change(&self) -> Result<PageChange<'_>, Infallible> {
        fault::point("start a change");
        // SAFETY: an open relation; the state is finished or aborted by the change.
        let state = unsafe { pg_sys::GenericXLogStart(self.relation.as_raw()) };
        Ok(PageChange { pages: self, state, held: [const { None }; MAX_CHANGE_PAGES], count: 0 })
    }

    fn check_interrupts(&self) -> Result<(), Infallible> {
        fault::point("look for interrupts");
        match self.mode {
            Mode::Normal => {
                pgrx::check_for_interrupts!();
            }
            Mode::Vacuum(_) => version::vacuum_delay(),
        }
        Ok(())
    }

    fn free_block(&self) -> Option<BlockNumber> {
        fault::point("look for free space");
        // SAFETY: an open relation.
        let block = unsafe { pg_sys::GetPageWithFreeSpace(self.relation.as_raw(), BLOCK_BYTES / 2) };
        // The map may be older than a truncated or restored file.
        let found = (block != pg_sys::InvalidBlockNumber && block < self.relation.block_count(MAIN))
            .then_some(BlockNumber(block));
        self.known_free.set(found);
        found
    }

    fn record_free(&self, block: BlockNumber, free: bool) {
        if free && self.known_free.get() == Some(block) {
            return;
        }
        fault::point("record free space");
        // SAFETY: an open relation; the block exists.
        unsafe {
            let relation = self.relation.as_raw();
            pg_sys::RecordPageWithFreeSpace(relation, block.0, if free { BLOCK_BYTES - 1 } else { 0 });
            if free && self.mode == Mode::Normal {
                fault::point("propagate free space");
                pg_sys::FreeSpaceMapVacuumRange(relation, block.0, block.0 + 1);
            }
        }
    }
}

/// A locked page and its working copy.
struct Held {
    block: BlockNumber,
    /// Released when dropped.
    _locked: Locked,
    copy: pg_sys::Page,
}

/// A change of up to four pages: one generic log record.
pub struct PageChange<'a> {
    pages: &'a Pages<'a>,
    /// NULL once finished.
    state: *mut pg_sys::GenericXLogState,
    held: [Option<Held>; MAX_CHANGE_PAGES],
    count: usize,
}

impl PageChange<'_> {
    /// Takes a page into the change. A page of zeros, new or left by a writer that died after it extended the file, is
    /// logged whole: a standby may not have it, and a difference to it would end the standby's replay.
    fn hold(&mut self, block: BlockNumber, locked: Locked) -> &mut Page {
        assert!(self.count < MAX_CHANGE_PAGES, "a change touches four pages at most");
        debug_assert!(self.held[..self.count].iter().flatten().all(|held| held.block < block));
        fault::point("take a page into a change");
        // SAFETY: the state is open, the buffer locked exclusively; the copy is a whole block of ours.
        unsafe {
            let is_new = (*locked.page().cast::<pg_sys::PageHeaderData>()).pd_upper == 0;
            let flags = if is_new { pg_sys::GENERIC_XLOG_FULL_IMAGE } else { 0 };
            let copy = pg_sys::GenericXLogRegisterBuffer(self.state, locked.0, flags as _);
            if is_new {
                init_header(copy);
            }
            self.held[self.count] = Some(Held { block, _locked: locked, copy });
            self.count += 1;
            body_mut(copy)
        }
    }
}

impl Change for PageChange<'_> {
    type Error = Infallible;

    fn page(&mut self, block: BlockNumber) -> Result<&mut Page, Infallible> {
        let known = self.held.iter().flatten().find(|held| held.block == block).map(|held| held.copy);
        if let Some(copy) = known {
            // SAFETY: the copy is ours, and the borrow of self keeps it from being handed out twice.
            return Ok(unsafe { body_mut(copy) });
        }
        let locked = Locked::new(self.pages.pin(block), pg_sys::BUFFER_LOCK_EXCLUSIVE);
        Ok(self.hold(block, locked))
    }

    fn extend(&mut self) -> Result<BlockNumber, Infallible> {
        fault::point("extend the index");
        let relation = self.pages.relation;
        let exclusive = pg_sys::ExclusiveLock as pg_sys::LOCKMODE;
        // SAFETY: an open relation. The lock is released at once; an error in between leaves it to the server.
        let (block, locked) = unsafe {
            if !relation.is_local() {
                pg_sys::LockRelationForExtension(relation.as_raw(), exclusive);
            }
            fault::point("add a page");
            let buffer = pg_sys::ReadBufferExtended(
                relation.as_raw(),
                MAIN,
                pg_sys::InvalidBlockNumber,
                pg_sys::ReadBufferMode::RBM_NORMAL,
                self.pages.strategy(),
            );
            let locked = Locked::new(buffer, pg_sys::BUFFER_LOCK_EXCLUSIVE);
            fault::point("end the extension");
            if !relation.is_local() {
                pg_sys::UnlockRelationForExtension(relation.as_raw(), exclusive);
            }
            (BlockNumber(pg_sys::BufferGetBlockNumber(buffer)), locked)
        };
        self.hold(block, locked);
        Ok(block)
    }

    fn commit(mut self) -> Result<(), Infallible> {
        fault::point("commit a change");
        let state = std::mem::replace(&mut self.state, std::ptr::null_mut());
        if self.count == 0 {
            // SAFETY: an open state.
            unsafe { pg_sys::GenericXLogAbort(state) };
        } else {
            // SAFETY: an open state; all registered buffers are still locked.
            unsafe { pg_sys::GenericXLogFinish(state) };
            fault::point("go on behind a change");
        }
        Ok(())
    }
}

impl Drop for PageChange<'_> {
    fn drop(&mut self) {
        if !self.state.is_null() && !panicking() {
            // SAFETY: an open state; the memory of one that an error left behind goes with its context.
            unsafe { pg_sys::GenericXLogAbort(self.state) };
        }
    }
}
