//! What the encoders need from the server: interrupts, clocks, roles.

pub use crate::server::threads::interrupt_pending;
use pgrx::pg_sys;

/// When the current statement began, in the server's microseconds: a cheap name for the statement.
pub fn statement_start() -> i64 {
    // SAFETY: a plain read of the server's transaction state.
    unsafe { pg_sys::GetCurrentStatementStartTimestamp() }
}
