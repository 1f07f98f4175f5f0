//! Plain threads that compute beside a thread that waits and looks for interrupts.
//!
//! Standard library and signal masks only, so that a test can run it without a server.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use imgvec_encoder::SignalsBlocked;

/// How often the waiting thread looks for interrupts.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Workers that have not ended, and what the first of them that panicked died of.
struct Running {
    left: Mutex<Left>,
    ended: Condvar,
}

struct Left {
    count: usize,
    panic: Option<Box<dyn Any + Send>>,
}

impl Running {
    /// Counts and payload are whole at every moment, also if somebody panicked.
    fn left(&self) -> MutexGuard<'_, Left> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One worker's place: given up when dropped, however the worker ends.
struct Place<'a>(&'a Running);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.left().count -= 1;
        self.0.ended.notify_one();
    }
}

/// Tells the workers to stop unless they came to their end.
struct StopOnDrop<'a> {
    stop: &'a AtomicBool,
    is_finished: bool,
}

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        if !self.is_finished {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

/// Runs `job` on `count` threads, calls `look` while they work, and comes back when all of them have ended.
///
/// `stop` is set when `look` panics, or a worker does; the job should end soon then. The first panic goes on in this
/// thread once all have ended. If no thread can be had, the job runs here.
pub fn run(count: usize, stop: &AtomicBool, job: &(dyn Fn() + Sync), look: &mut dyn FnMut()) {
    let running = Running { left: Mutex::new(Left { count: 0, panic: None }), ended: Condvar::new() };
    std::thread::scope(|scope| {
        // The scope waits for the workers, who end soon once they are told so.
        let mut guard = StopOnDrop { stop, is_finished: false };
        let mut started = 0;
        {
            let _blocked = SignalsBlocked::new().expect("a valid way to set the mask");
            for _ in 0..count {
                running.left().count += 1;
                let place = Place(&running);
                let worker = move || {
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(job)) {
                        stop.store(true, Ordering::Relaxed);
                        place.0.left().panic.get_or_insert(panic);
                    }
                    drop(place);
                };
                // A thread that cannot be started drops its worker, and with it the place.
                let thread = std::thread::Builder::new().name("imgvec build".into());
                started += usize::from(thread.spawn_scoped(scope, worker).is_ok());
            }
        }
        if started == 0 {
            job();
        }
        loop {
            let left = running.left();
            if left.count == 0 {
                break;
            }
            drop(running.ended.wait_timeout(left, LOOK_EVERY));
            look();
        }
        guard.is_finished = true;
    });
    let panic = running.left().panic.take();
    if let Some(panic) = panic {
        resume_unwind(panic);
    }
}
