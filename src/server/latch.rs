//! Waiting that interrupts end.

use pgrx::pg_sys;
use std::time::Duration;

/// Waits, at most that long; a signal or another process's call ends it earlier. Serves interrupts.
pub fn wait(time: Duration) {
    sleep(time);
    pgrx::check_for_interrupts!();
}

/// Waits, at most that long; returns whether the latch was set.
pub fn sleep(time: Duration) -> bool {
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    let milliseconds = std::ffi::c_long::try_from(time.as_millis()).unwrap_or(std::ffi::c_long::MAX);
    // SAFETY: the process's own latch.
    unsafe {
        let woken =
            pg_sys::WaitLatch(pg_sys::MyLatch, events.cast_signed(), milliseconds, pg_sys::PG_WAIT_EXTENSION);
        pg_sys::ResetLatch(pg_sys::MyLatch);
        woken & pg_sys::WL_LATCH_SET.cast_signed() != 0
    }
}
