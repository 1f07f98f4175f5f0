//! How many threads a backend may use for maintenance, and whether the work is to end.

use pgrx::pg_sys;

/// As many threads as the server allows workers for maintenance, and one more in place of the backend's own; at most
/// one for each core.
pub fn maintenance_threads() -> usize {
    // SAFETY: plain read of a server setting.
    let allowed = usize::try_from(unsafe { pg_sys::max_parallel_maintenance_workers }).unwrap_or(0) + 1;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    allowed.min(cores)
}

/// Whether the statement is to be cancelled or the backend to end. Reads two flags that signal handlers set, so that any
/// thread may ask. `InterruptPending` would not do: it is set for other reasons too.
pub fn interrupt_pending() -> bool {
    // SAFETY: aligned integers of the server that live as long as the process; a volatile read sees what the handler
    // wrote, as the server's own checks do.
    unsafe {
        std::ptr::read_volatile(&raw const pg_sys::QueryCancelPending) != 0
            || std::ptr::read_volatile(&raw const pg_sys::ProcDiePending) != 0
    }
}
