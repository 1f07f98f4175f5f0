//! Processes of the server beside this one, and what a background worker does with its own.

use super::{latch, version};
use pgrx::callbacks::{PgXactCallbackEvent, register_xact_callback};
use pgrx::prelude::*;
use std::cell::Cell;
use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, Ordering};

unsafe extern "C" {
    // The C library's: neither raises an error.
    fn nice(increment: c_int) -> c_int;
    fn _exit(status: c_int) -> !;
}

thread_local! {
    /// Whether the transaction wakes workers when it commits.
    static WAKES: Cell<bool> = const { Cell::new(false) };
}

/// Whether this process was asked to stop.
static STOP: AtomicBool = AtomicBool::new(false);
/// Whether this process is connected to its database.
static IS_CONNECTED: AtomicBool = AtomicBool::new(false);

/// Has the background workers of this database look around when the transaction has committed.
pub fn wake_workers_at_commit() {
    if !WAKES.replace(true) {
        register_xact_callback(PgXactCallbackEvent::Commit, || {
            WAKES.set(false);
            wake_workers();
        });
        register_xact_callback(PgXactCallbackEvent::Abort, || WAKES.set(false));
    }
}

/// Sets the latches of all background workers that are connected to this database: whoever is not meant looks, and sleeps on.
fn wake_workers() {
    // SAFETY: the array lives as long as the server. Fields are read without a lock: a process that comes or goes meanwhile is
    // woken for nothing, or looks around anyway when it starts. Setting a latch raises no error.
    unsafe {
        let all = &*pg_sys::ProcGlobal;
        let count = usize::try_from(all.allProcCount).unwrap_or(0);
        for place in 0..count {
            let process = all.allProcs.add(place);
            if version::is_worker(&*process)
                && (*process).pid != 0
                && (*process).databaseId == pg_sys::MyDatabaseId
            {
                pg_sys::SetLatch(&raw mut (*process).procLatch);
            }
        }
    }
}

/// Whether this worker is to stop.
pub fn is_stopping() -> bool {
    STOP.load(Ordering::Relaxed)
}

/// The signal to stop: cancels what runs, and is remembered.
#[pg_guard]
unsafe extern "C-unwind" fn stop(_signal: c_int) {
    STOP.store(true, Ordering::Relaxed);
    // SAFETY: what the server's own handler of a request to cancel does; all of it may be done in a handler.
    unsafe {
        (&raw mut pg_sys::InterruptPending).write_volatile(1);
        (&raw mut pg_sys::QueryCancelPending).write_volatile(1);
        pg_sys::SetLatch(pg_sys::MyLatch);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn reload(_signal: c_int) {
    // SAFETY: as above.
    unsafe {
        (&raw mut pg_sys::ConfigReloadPending).write_volatile(1);
        pg_sys::SetLatch(pg_sys::MyLatch);
    }
}

/// A worker whose database is gone, or that was asked to stop, ends for good: with status 0 the server does not start it again,
/// whatever error the request met. Called last of all.
#[pg_guard]
unsafe extern "C-unwind" fn end_for_good(_code: c_int, _argument: pg_sys::Datum) {
    if !IS_CONNECTED.load(Ordering::Relaxed) || is_stopping() {
        // SAFETY: everything else is cleaned up.
        unsafe { _exit(0) };
    }
}

/// The database that a worker connects to.
pub enum Database {
    Oid(pg_sys::Oid),
    Name(std::ffi::CString),
}

/// Makes this background worker one that stops when it is asked to, and connects it, as a superuser.
pub fn connect_worker(database: &Database) {
    let signal = |number: u32, handler: unsafe extern "C-unwind" fn(c_int)| {
        let number = number.cast_signed();
        // SAFETY: handlers that do what handlers may.
        unsafe { version::handle_signal(number, handler) };
    };
    signal(pg_sys::SIGTERM, stop);
    signal(pg_sys::SIGHUP, reload);
    // SAFETY: the start of a worker: signals, then the database. If that is not there, the process ends.
    unsafe {
        pg_sys::on_proc_exit(Some(end_for_good), pg_sys::Datum::null());
        pg_sys::BackgroundWorkerUnblockSignals();
        match database {
            Database::Oid(oid) => {
                pg_sys::BackgroundWorkerInitializeConnectionByOid(*oid, pg_sys::InvalidOid, 0);
            }
            Database::Name(name) => {
                pg_sys::BackgroundWorkerInitializeConnection(name.as_ptr(), std::ptr::null(), 0);
            }
        }
    }
    IS_CONNECTED.store(true, Ordering::Relaxed);
}

/// Takes over changed settings.
pub fn reload_if_asked() {
    // SAFETY: outside of any transaction, as in the server's own workers.
    unsafe {
        if (&raw const pg_sys::ConfigReloadPending).read_volatile() != 0 {
            (&raw mut pg_sys::ConfigReloadPending).write_volatile(0);
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
    }
}

/// The value of a setting that exists.
pub fn setting(name: &std::ffi::CStr) -> String {
    // SAFETY: a NUL-terminated string; so is the answer, which nobody changes before it is copied.
    unsafe {
        let value = pg_sys::GetConfigOption(name.as_ptr(), false, false);
        std::ffi::CStr::from_ptr(value).to_string_lossy().into_owned()
    }
}

/// Sets a setting of a worker for as long as it runs; a value that is none is an error.
pub fn set(name: &std::ffi::CStr, value: &str) {
    let value = super::spi::c_string(value);
    // SAFETY: NUL-terminated strings.
    unsafe {
        pg_sys::SetConfigOption(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
        );
    }
}

/// Has a worker, between transactions, do everything else as another role. That takes no rights from code of that role,
/// since the session stays a superuser's: SET ROLE would answer to it. So such code runs only where the server itself, or
/// `security::as_owner`, restricts it. (A context that is not 0 between transactions the server does not allow for.)
pub fn become_user(role: pg_sys::Oid) {
    // SAFETY: outside of any transaction; each transaction begins and ends as this role.
    unsafe { pg_sys::SetUserIdAndSecContext(role, 0) };
}

/// Lets other processes go first.
pub fn be_nice(increment: c_int) {
    // SAFETY: no pointers. What the system refuses stays as it is.
    unsafe { nice(increment) };
}

/// Ends a worker so that the server starts it again after its time.
pub fn end_to_restart() -> ! {
    // SAFETY: outside of any transaction.
    unsafe { pg_sys::proc_exit(1) };
    #[allow(unreachable_code, reason = "that it does not return the bindings of 18 do not know")]
    {
        unreachable!("the process has ended")
    }
}

/// Runs a worker's work. The request to stop cancels what runs, whatever that is: such an error ends the worker without a
/// word in the log.
pub fn until_stopped(work: impl FnOnce()) {
    pg_sys::PgTryBuilder::new(std::panic::AssertUnwindSafe(work))
        .catch_when(pg_sys::errcodes::PgSqlErrorCode::ERRCODE_QUERY_CANCELED, |error| {
            if !is_stopping() {
                error.rethrow();
            }
            // SAFETY: the server's last steps roll the open transaction back.
            unsafe { pg_sys::proc_exit(0) };
        })
        .execute();
}

/// One transaction of a worker; `activity` is what pg_stat_activity shows meanwhile.
pub fn transaction<T>(activity: &str, work: impl FnOnce() -> T) -> T {
    let activity = super::spi::c_string(activity);
    // SAFETY: as the server's own example of a worker does. An error ends the worker.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        pg_sys::XactIsoLevel = pg_sys::XACT_READ_COMMITTED.cast_signed();
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, activity.as_ptr());
        let result = super::spi::with_snapshot(work);
        pg_sys::CommitTransactionCommand();
        pg_sys::pgstat_report_stat(false);
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, std::ptr::null());
        result
    }
}

/// Waits for a moment. Serves interrupts.
pub fn wait(time: std::time::Duration) {
    latch::wait(time);
}

/// Sleeps; returns whether somebody woke us. A request to stop ends it too.
pub fn sleep(time: std::time::Duration) -> bool {
    latch::sleep(time)
}

/// Whether there is a process of that number.
pub fn is_alive(process: i32) -> bool {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(process), None).is_ok()
}

/// Signals a process to end.
pub fn terminate(process: i32) {
    // One that is gone needs none.
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(process), nix::sys::signal::Signal::SIGTERM);
}
