//! Memory that is kept aside, so that a shortage is an error of one statement.
//!
//! Rust ends the process when an allocation fails, and a backend that ends so takes the whole server
//! down. What is large is asked for in ways that may fail. For the rest, thousands of small allocations in
//! libraries that tokenize and parse, this allocator keeps a block aside: when the system refuses memory, the
//! block is given back, the allocation is tried again, and a flag says that the work must stop. Whoever
//! works in steps looks at the flag after each ([`is_short`]) and raises an error.
//!
//! The block is address space that nobody has touched: it takes no memory until it is needed.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

/// Bytes kept aside: more than one step takes beyond what it asks for beforehand.
const KEPT_BYTES: usize = 16 << 20;
/// Larger requests are not served from what is kept: whoever makes them can bear a refusal.
const LARGEST_BYTES: usize = 8 << 20;

const KEPT: Layout = match Layout::from_size_align(KEPT_BYTES, 4096) {
    Ok(layout) => layout,
    Err(_) => panic!("a power of two"),
};

static BLOCK: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());
static SHORT: AtomicBool = AtomicBool::new(false);

struct KeepingAside;

#[global_allocator]
static ALLOCATOR: KeepingAside = KeepingAside;

/// Gives the block back. True if there was one, so that an allocation may succeed now.
#[cold]
fn release() -> bool {
    // Two threads that fail at once: one of them gets the block.
    let block = BLOCK.swap(ptr::null_mut(), Ordering::AcqRel);
    if block.is_null() {
        return false;
    }
    SHORT.store(true, Ordering::Release);
    // SAFETY: `keep_aside` got the block from System with this layout, and the swap made it ours alone.
    unsafe { System.dealloc(block, KEPT) };
    true
}

/// Tries again what failed, with the block given back.
#[cold]
fn again(bytes: usize, attempt: impl FnOnce() -> *mut u8) -> *mut u8 {
    if bytes <= LARGEST_BYTES && release() { attempt() } else { ptr::null_mut() }
}

// SAFETY: every block comes from System and goes back to it, with the layout that the caller gave; nothing
// here unwinds or allocates by another way.
unsafe impl GlobalAlloc for KeepingAside {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are System's.
        let attempt = || unsafe { System.alloc(layout) };
        let block = attempt();
        if block.is_null() { again(layout.size(), attempt) } else { block }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are System's.
        let attempt = || unsafe { System.alloc_zeroed(layout) };
        let block = attempt();
        if block.is_null() { again(layout.size(), attempt) } else { block }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's promises are System's; after a failure the old block is as it was.
        let attempt = || unsafe { System.realloc(old, layout, new_size) };
        let block = attempt();
        if block.is_null() { again(new_size, attempt) } else { block }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are System's.
        unsafe { System.dealloc(block, layout) };
    }
}

/// Keeps the block aside, if it is not. False if the system refuses it: then no work should start.
pub fn keep_aside() -> bool {
    SHORT.store(false, Ordering::Release);
    if !BLOCK.load(Ordering::Acquire).is_null() {
        return true;
    }
    // SAFETY: the layout has a size.
    let block = unsafe { System.alloc(KEPT) };
    if block.is_null() {
        return false;
    }
    let other = BLOCK.swap(block, Ordering::AcqRel);
    if !other.is_null() {
        // SAFETY: as in `release`.
        unsafe { System.dealloc(other, KEPT) };
    }
    true
}

/// Whether an allocation has failed since memory was kept aside, so that the work must stop.
pub fn is_short() -> bool {
    SHORT.load(Ordering::Acquire)
}

/// Gives memory that is free inside the allocator back to the system. Reading a model leaves holes as
/// large as its files: 13 MB beside a loaded CLIP ViT-B/32, 800 MB in the backend that prepared it.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    {
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> i32;
        }
        // SAFETY: thread-safe, takes no pointers, and frees nothing that is in use.
        unsafe { malloc_trim(0) };
    }
}
