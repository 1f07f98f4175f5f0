//! What the rest of `src/` needs from the server beyond its pages: catalogs, the owner's rights, subtransactions,
//! threads, and everything that differs from version to version. It knows nothing of vectors and graphs.

pub mod catalog;
mod conditions;
pub mod expression;
pub mod latch;
pub mod lists;
pub mod passing;
pub mod process;
pub mod raw;
pub mod returned;
pub mod security;
pub mod spi;
pub mod subtransaction;
pub mod threads;
pub mod triggers;
pub mod utility;
pub mod version;
pub mod window;
pub mod workers;

/// Whether this server replays another one's changes, and writes none.
pub fn is_standby() -> bool {
    // SAFETY: a plain question to the server.
    unsafe { pgrx::pg_sys::RecoveryInProgress() }
}
