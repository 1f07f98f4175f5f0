//! Threads of a build: plain compute threads, while the backend's own thread looks for interrupts.
//!
//! They inherit a mask that blocks every signal, never call the server, and end before the call that
//! started them does, also when that call ends by an error.

use crate::server::{threads, workers};
use imgvec_ann::build::executor::Executor;
use std::sync::atomic::{AtomicBool, Ordering};

/// As many threads as the server allows for maintenance.
pub struct BuildThreads {
    workers: usize,
    cancelled: AtomicBool,
}

impl BuildThreads {
    pub fn new() -> Self {
        Self { workers: threads::maintenance_threads(), cancelled: AtomicBool::new(false) }
    }

    /// One thread, for what is done in passing.
    pub fn single() -> Self {
        Self { workers: 1, cancelled: AtomicBool::new(false) }
    }
}

impl Executor for BuildThreads {
    fn workers(&self) -> usize {
        self.workers
    }

    fn run(&self, job: &(dyn Fn() + Sync)) {
        let mut look = || {
            pgrx::check_for_interrupts!();
        };
        workers::run(self.workers, &self.cancelled, job, &mut look);
    }

    fn cancelled(&self) -> bool {
        // What the backend's own thread computes between two jobs ends by this alone.
        threads::interrupt_pending() || self.cancelled.load(Ordering::Relaxed)
    }
}
