//! How much memory a call may take.

use crate::error::{Code, Report};
use pgrx::pg_sys;

/// What the session allows to one operation: the greater of what a hash table and what maintenance may take.
pub fn allowed_bytes() -> usize {
    // SAFETY: settings of this session.
    let (hash, maintenance) = unsafe { (pg_sys::get_hash_memory_limit(), pg_sys::maintenance_work_mem) };
    hash.max(usize::try_from(maintenance).unwrap_or(0).saturating_mul(1024))
}

/// Raises an error if `wanted` bytes are more than are allowed. `what` takes them: a plural.
pub fn require(wanted: usize, what: &str, remedy: &str) {
    let allowed = allowed_bytes();
    if wanted > allowed {
        exceeded(wanted, allowed, what, remedy).raise();
    }
}

pub fn exceeded(wanted: usize, allowed: usize, what: &str, remedy: &str) -> Report {
    let megabytes = |bytes: usize| bytes.div_ceil(1 << 20);
    Report::new(Code::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED, "maintenance_work_mem is too small")
        .detail(format!("{what} take {} MB, and the limit is {} MB.", megabytes(wanted), megabytes(allowed)))
        .hint(format!("Set maintenance_work_mem to {} MB or more, or {remedy}.", megabytes(wanted)))
}

/// The system refused so much memory.
pub fn refused(bytes: usize) -> Report {
    crate::error::out_of_memory(format!("The system refused {bytes} bytes."))
}
