//! Writing the pages of a new index, one after another, and logging them at the end.

use super::Relation;
use super::pages::{body_mut, init_header};
use crate::fault;
use imgvec_ann::layout::{BlockNumber, Page};
use imgvec_ann::store::PageSink;
use pgrx::pg_sys;
use std::convert::Infallible;

/// Which fork to write.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fork {
    /// The index itself.
    Main,
    /// What an unlogged index is reset to after a crash.
    Init,
}

impl Fork {
    fn number(self) -> pg_sys::ForkNumber::Type {
        match self {
            Fork::Main => pg_sys::ForkNumber::MAIN_FORKNUM,
            Fork::Init => pg_sys::ForkNumber::INIT_FORKNUM,
        }
    }
}

/// A new index that nobody else sees yet.
pub struct NewPages<'a> {
    relation: Relation<'a>,
    fork: Fork,
    count: u32,
}

impl<'a> NewPages<'a> {
    pub fn new(relation: Relation<'a>, fork: Fork) -> Self {
        Self { relation, fork, count: 0 }
    }

    /// Replaces a page that was written. It is logged with the others.
    pub fn replace(&mut self, block: BlockNumber, page: &Page) {
        assert!(block.0 < self.count, "the page was written");
        // SAFETY: an open relation that nobody else sees; the buffer is pinned, locked, written and released here. An
        // error in between leaves it to the server.
        unsafe {
            let buffer = pg_sys::ReadBufferExtended(
                self.relation.as_raw(),
                self.fork.number(),
                block.0,
                pg_sys::ReadBufferMode::RBM_NORMAL,
                std::ptr::null_mut(),
            );
            pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_EXCLUSIVE as _);
            *body_mut(pg_sys::BufferGetPage(buffer)) = *page;
            pg_sys::MarkBufferDirty(buffer);
            pg_sys::UnlockReleaseBuffer(buffer);
        }
    }

    /// Logs what was written; to be called once, at the end.
    pub fn finish(self) {
        if self.fork == Fork::Init || self.relation.needs_wal() {
            fault::point("log the pages");
            // SAFETY: the pages exist and have standard headers.
            unsafe {
                pg_sys::log_newpage_range(self.relation.as_raw(), self.fork.number(), 0, self.count, true);
            }
        }
    }
}

impl PageSink for NewPages<'_> {
    type Error = Infallible;

    fn append(&mut self, page: &Page) -> Result<(), Infallible> {
        fault::point("append a page");
        pgrx::check_for_interrupts!();
        // SAFETY: an open relation that only this process extends; the new buffer is pinned, locked, written
        // and released here. An error in between leaves it to the server.
        unsafe {
            let buffer = pg_sys::ReadBufferExtended(
                self.relation.as_raw(),
                self.fork.number(),
                pg_sys::InvalidBlockNumber,
                pg_sys::ReadBufferMode::RBM_NORMAL,
                std::ptr::null_mut(),
            );
            fault::point("lock a new page");
            pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_EXCLUSIVE as _);
            fault::point("fill a new page");
            let target = pg_sys::BufferGetPage(buffer);
            init_header(target);
            *body_mut(target) = *page;
            pg_sys::MarkBufferDirty(buffer);
            assert_eq!(pg_sys::BufferGetBlockNumber(buffer), self.count, "pages come in order");
            pg_sys::UnlockReleaseBuffer(buffer);
        }
        self.count += 1;
        Ok(())
    }
}
