//! What the encoders need from the server: interrupts, clocks, roles.

pub use crate::server::threads::interrupt_pending;
use pgrx::pg_sys;

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
