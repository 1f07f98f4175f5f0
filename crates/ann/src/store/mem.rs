//! A store in memory that checks the rules and can crash.
//!
//! It refuses a second page lock during a read, locks out of order, a fifth page, and blocks beyond the
//! end. [`MemStore::crash_after`] lets a number of changes commit and fails everything after;
//! [`MemStore::restart`] brings back what had been committed, without the free-space map.

use super::{Change, MAX_CHANGE_PAGES, PageSink, PageStore};
use crate::layout::{BlockNumber, PAGE_BYTES, Page};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::ops::Deref;
use std::rc::Rc;

/// A broken rule or an ordered failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemError {
    /// No such page.
    #[error("block {0} is beyond the end")]
    BeyondEnd(u32),
    /// A page lock was asked for while another was held that it may deadlock with.
    #[error("lock on block {0} breaks the locking order")]
    LockOrder(u32),
    /// More pages than one log record can hold.
    #[error("change of more than {MAX_CHANGE_PAGES} pages")]
    TooManyPages,
    /// The power is off.
    #[error("crashed")]
    Crashed,
    /// The operation was asked to end.
    #[error("interrupted")]
    Interrupted,
}

/// Pages in memory. Single-threaded.
#[derive(Default)]
pub struct MemStore {
    pages: RefCell<Vec<Rc<Page>>>,
    free: RefCell<BTreeSet<u32>>,
    reads_held: Cell<u32>,
    change_open: Cell<bool>,
    reads: Cell<u64>,
    commits: Cell<u64>,
    written_pages: Cell<u64>,
    commits_left: Cell<Option<u64>>,
    checks_left: Cell<Option<u64>>,
    crashed: Cell<bool>,
}

impl MemStore {
    /// A store without pages.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets `commits` more changes commit; the next one fails, and everything after it.
    pub fn crash_after(&self, commits: u64) {
        self.commits_left.set(Some(commits));
    }

    /// Makes the interrupt check fail after `checks` more calls.
    pub fn interrupt_after(&self, checks: u64) {
        self.checks_left.set(Some(checks));
    }

    /// The store after a crash and recovery: committed pages, no free-space map, no orders pending.
    #[must_use]
    pub fn restart(self) -> Self {
        Self { pages: self.pages, ..Self::default() }
    }

    /// Page reads so far.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.reads.get()
    }

    /// Committed changes so far.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.commits.get()
    }

    /// Pages in the committed changes so far.
    #[must_use]
    pub fn written_pages(&self) -> u64 {
        self.written_pages.get()
    }

    fn alive(&self) -> Result<(), MemError> {
        if self.crashed.get() { Err(MemError::Crashed) } else { Ok(()) }
    }
}

/// A share lock.
pub struct MemRead<'a> {
    page: Rc<Page>,
    store: &'a MemStore,
}

impl Deref for MemRead<'_> {
    type Target = Page;
    fn deref(&self) -> &Page {
        &self.page
    }
}

impl Drop for MemRead<'_> {
    fn drop(&mut self) {
        self.store.reads_held.set(self.store.reads_held.get() - 1);
    }
}

/// A change of up to four pages.
pub struct MemChange<'a> {
    pages: Vec<(u32, Box<Page>)>,
    store: &'a MemStore,
}

impl Drop for MemChange<'_> {
    fn drop(&mut self) {
        self.store.change_open.set(false);
    }
}

impl PageStore for MemStore {
    type Error = MemError;
    type Read<'a> = MemRead<'a>;
    type Change<'a> = MemChange<'a>;

    fn block_count(&self) -> Result<u32, MemError> {
        Ok(u32::try_from(self.pages.borrow().len()).expect("memory ends before"))
    }

    fn read(&self, block: BlockNumber) -> Result<MemRead<'_>, MemError> {
        self.alive()?;
        if self.reads_held.get() > 0 || self.change_open.get() {
            return Err(MemError::LockOrder(block.0));
        }
        let pages = self.pages.borrow();
        let page = pages.get(block.0 as usize).ok_or(MemError::BeyondEnd(block.0))?;
        self.reads.set(self.reads.get() + 1);
        self.reads_held.set(1);
        Ok(MemRead { page: Rc::clone(page), store: self })
    }

    fn prefetch(&self, _blocks: &[BlockNumber]) {}

    fn change(&self) -> Result<MemChange<'_>, MemError> {
        self.alive()?;
        if self.reads_held.get() > 0 || self.change_open.get() {
            return Err(MemError::LockOrder(u32::MAX));
        }
        self.change_open.set(true);
        Ok(MemChange { pages: Vec::new(), store: self })
    }

    fn check_interrupts(&self) -> Result<(), MemError> {
        if self.reads_held.get() > 0 || self.change_open.get() {
            return Err(MemError::LockOrder(u32::MAX));
        }
        match self.checks_left.get() {
            Some(0) => Err(MemError::Interrupted),
            left => {
                self.checks_left.set(left.map(|n| n - 1));
                Ok(())
            }
        }
    }

    fn free_block(&self) -> Option<BlockNumber> {
        self.free.borrow().first().copied().map(BlockNumber)
    }

    fn record_free(&self, block: BlockNumber, free: bool) {
        if free {
            self.free.borrow_mut().insert(block.0);
        } else {
            self.free.borrow_mut().remove(&block.0);
        }
    }
}

impl MemChange<'_> {
    fn lock(&mut self, block: u32, page: Box<Page>) -> Result<&mut Page, MemError> {
        if self.pages.last().is_some_and(|&(last, _)| last >= block) {
            return Err(MemError::LockOrder(block));
        }
        if self.pages.len() == MAX_CHANGE_PAGES {
            return Err(MemError::TooManyPages);
        }
        self.pages.push((block, page));
        Ok(&mut self.pages.last_mut().expect("just pushed").1)
    }
}

impl Change for MemChange<'_> {
    type Error = MemError;

    fn page(&mut self, block: BlockNumber) -> Result<&mut Page, MemError> {
        if let Some(at) = self.pages.iter().position(|&(b, _)| b == block.0) {
            return Ok(&mut self.pages[at].1);
        }
        let copy = {
            let pages = self.store.pages.borrow();
            Box::new(**pages.get(block.0 as usize).ok_or(MemError::BeyondEnd(block.0))?)
        };
        self.lock(block.0, copy)
    }

    fn extend(&mut self) -> Result<BlockNumber, MemError> {
        let block = self.store.block_count()?;
        self.store.pages.borrow_mut().push(Rc::new([0; PAGE_BYTES]));
        self.lock(block, Box::new([0; PAGE_BYTES]))?;
        Ok(BlockNumber(block))
    }

    fn commit(mut self) -> Result<(), MemError> {
        match self.store.commits_left.get() {
            Some(0) => {
                self.store.crashed.set(true);
                return Err(MemError::Crashed);
            }
            left => self.store.commits_left.set(left.map(|n| n - 1)),
        }
        let mut pages = self.store.pages.borrow_mut();
        self.store.commits.set(self.store.commits.get() + 1);
        self.store.written_pages.set(self.store.written_pages.get() + self.pages.len() as u64);
        for (block, page) in self.pages.drain(..) {
            pages[block as usize] = Rc::new(*page);
        }
        Ok(())
    }
}

impl PageSink for MemStore {
    type Error = MemError;

    fn append(&mut self, page: &Page) -> Result<(), MemError> {
        self.pages.get_mut().push(Rc::new(*page));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(n: usize) -> MemStore {
        let mut store = MemStore::new();
        for _ in 0..n {
            store.append(&[0; PAGE_BYTES]).unwrap();
        }
        store
    }

    #[test]
    fn rules_are_enforced() {
        let store = store(6);
        let block = BlockNumber;
        assert_eq!(store.read(block(6)).err(), Some(MemError::BeyondEnd(6)));
        let held = store.read(block(1)).unwrap();
        assert_eq!(store.read(block(2)).err(), Some(MemError::LockOrder(2)));
        assert!(store.change().is_err() && store.check_interrupts().is_err());
        drop(held);
        let mut change = store.change().unwrap();
        change.page(block(3)).unwrap();
        assert_eq!(change.page(block(2)).err(), Some(MemError::LockOrder(2)));
        change.page(block(4)).unwrap();
        change.page(block(3)).unwrap();
        change.page(block(5)).unwrap();
        assert_eq!(change.extend(), Ok(block(6)));
        assert_eq!(change.extend(), Err(MemError::TooManyPages));
        assert!(store.read(block(0)).is_err(), "a change is open");
        drop(change);
        assert!(store.read(block(0)).is_ok());
    }

    #[test]
    fn changes_take_effect_at_commit_and_not_after_a_crash() {
        let store = store(1);
        let write = |value: u8| {
            let mut change = store.change()?;
            change.page(BlockNumber(0))?[0] = value;
            change.commit()
        };
        write(1).unwrap();
        store.change().and_then(|mut c| c.page(BlockNumber(0)).map(|p| p[0] = 9)).unwrap();
        assert_eq!(store.read(BlockNumber(0)).unwrap()[0], 1);
        store.crash_after(1);
        write(2).unwrap();
        assert_eq!(write(3), Err(MemError::Crashed));
        assert!(store.read(BlockNumber(0)).is_err());
        let store = store.restart();
        assert_eq!(store.read(BlockNumber(0)).unwrap()[0], 2);
    }
}
