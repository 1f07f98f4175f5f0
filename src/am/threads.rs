//! Threads of a build: plain compute threads, while the backend's own thread looks for interrupts.
//!
//! They inherit a mask that blocks every signal, never call the server, and end before the call that
//! started them does, also when that call ends by an error.

use imgvec_ann::build::executor::Executor;
use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};
use pgrx::pg_sys;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

/// How often the backend's thread looks for interrupts.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// As many threads as the server allows workers for maintenance, and one more in place of the backend's own.
pub struct BuildThreads {
    workers: usize,
    cancelled: AtomicBool,
}

impl BuildThreads {
    pub fn new() -> Self {
        // SAFETY: plain read of a server setting.
        let allowed = usize::try_from(unsafe { pg_sys::max_parallel_maintenance_workers }).unwrap_or(0) + 1;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { workers: allowed.min(cores), cancelled: AtomicBool::new(false) }
    }
}

/// Stops the workers when the waiting thread leaves, however it leaves.
struct StopOnDrop<'a> {
    cancelled: &'a AtomicBool,
    finished: bool,
}

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.cancelled.store(true, Ordering::Relaxed);
        }
    }
}

/// Blocks all signals for as long as it lives; threads that are started meanwhile keep them blocked.
struct SignalsBlocked(SigSet);

impl SignalsBlocked {
    fn new() -> Self {
        let mut before = SigSet::empty();
        pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))
            .expect("a valid way to set the mask");
        Self(before)
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&self.0), None);
    }
}

impl Executor for BuildThreads {
    fn workers(&self) -> usize {
        self.workers
    }

    fn run(&self, job: &(dyn Fn() + Sync)) {
        let (left, all_done) = (Mutex::new(self.workers), Condvar::new());
        let started = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            // Workers end soon once they are told so; the scope waits for them.
            let mut stop = StopOnDrop { cancelled: &self.cancelled, finished: false };
            {
                let _blocked = SignalsBlocked::new();
                for _ in 0..self.workers {
                    let worker = || {
                        job();
                        *left.lock().expect("nobody panics with the lock") -= 1;
                        all_done.notify_one();
                    };
                    match std::thread::Builder::new().name("imgvec build".into()).spawn_scoped(scope, worker)
                    {
                        Ok(_) => _ = started.fetch_add(1, Ordering::Relaxed),
                        Err(_) => *left.lock().expect("nobody panics with the lock") -= 1,
                    }
                }
            }
            if started.load(Ordering::Relaxed) == 0 {
                // No thread to be had: do the work here. Interrupts then wait for the next page.
                job();
            }
            loop {
                let left = left.lock().expect("nobody panics with the lock");
                if *left == 0 {
                    break;
                }
                drop(all_done.wait_timeout(left, LOOK_EVERY));
                pgrx::check_for_interrupts!();
            }
            stop.finished = true;
        });
    }

    fn cancelled(&self) -> bool {
        // SAFETY: flags of the server that signal handlers set; any thread may look at them. What the backend's
        // own thread computes between two jobs ends by this alone.
        let asked = unsafe {
            std::ptr::read_volatile(&raw const pg_sys::QueryCancelPending) != 0
                || std::ptr::read_volatile(&raw const pg_sys::ProcDiePending) != 0
        };
        asked || self.cancelled.load(Ordering::Relaxed)
    }
}
