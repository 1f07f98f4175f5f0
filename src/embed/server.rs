//! What the encoders need from the server: interrupts, clocks, roles.

use pgrx::pg_sys;
use std::ptr;

unsafe extern "C" {
    static mut ProcDiePending: pg_sys::sig_atomic_t;
}

/// Whether the statement is to be cancelled or the backend to end. Reads two flags that signal handlers
/// set, so that any thread may ask. `InterruptPending` would not do: it is set for other reasons too.
pub fn interrupt_pending() -> bool {
    // SAFETY: aligned integers of the server that live as long as the process; a volatile read sees what
    // the handler wrote, as the server's own checks do.
    unsafe {
        ptr::read_volatile(&raw const pg_sys::QueryCancelPending) != 0
            || ptr::read_volatile(&raw const ProcDiePending) != 0
    }
}

/// When the current statement began, in the server's microseconds: a cheap name for the statement.
pub fn statement_start() -> i64 {
    // SAFETY: a plain read of the server's transaction state.
    unsafe { pg_sys::GetCurrentStatementStartTimestamp() }
}

/// Gives memory that is free inside the allocator back to the system. Reading a model leaves holes as
/// large as its files: 13 MB beside a loaded CLIP ViT-B/32, 800 MB in the backend that prepared it.
pub fn return_free_memory() {
    #[cfg(target_env = "gnu")]
    {
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> i32;
        }
        // SAFETY: thread-safe, takes no pointers, and frees nothing that is in use.
        unsafe { malloc_trim(0) };
    }
}
