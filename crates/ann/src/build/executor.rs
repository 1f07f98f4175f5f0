//! Threads, as the caller provides them.
//!
//! The crate starts none on its own: a server process must block signals in them, must go on looking for
//! interrupts itself, and may not have any before it forks. [`Threads`] does for tests and benches, and for
//! a caller that blocks signals around the call (threads inherit the mask).

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Runs jobs on a fixed number of workers.
pub trait Executor: Sync {
    /// How many workers there are, at least one.
    fn workers(&self) -> usize;

    /// Calls `job` once per worker and returns when all have returned. Jobs neither call the server nor
    /// panic unless there is a bug; a panic may be passed on.
    fn run(&self, job: &(dyn Fn() + Sync));

    /// Workers ask this between pieces of work of some milliseconds and stop if it is true.
    fn cancelled(&self) -> bool;

    /// The same as an error.
    ///
    /// # Errors
    /// [`Cancelled`].
    fn check(&self) -> Result<(), Cancelled> {
        if self.cancelled() { Err(Cancelled) } else { Ok(()) }
    }
}

/// The executor asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cancelled;

/// A number of scoped threads, started per job; one worker is the calling thread itself.
pub struct Threads<'a> {
    workers: usize,
    cancel: &'a AtomicBool,
}

impl<'a> Threads<'a> {
    /// `workers` threads at least one; `cancel` may be set from anywhere.
    #[must_use]
    pub fn new(workers: usize, cancel: &'a AtomicBool) -> Self {
        Self { workers: workers.max(1), cancel }
    }
}

impl Executor for Threads<'_> {
    fn workers(&self) -> usize {
        self.workers
    }

    fn run(&self, job: &(dyn Fn() + Sync)) {
        std::thread::scope(|scope| {
            for _ in 1..self.workers {
                scope.spawn(job);
            }
            job();
        });
    }

    fn cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }
}

/// Computes `f(0..count)` in parallel, results in order, with one `scratch` per worker.
pub(crate) fn map<T: Send, C>(
    executor: &dyn Executor,
    count: usize,
    scratch: impl Fn() -> C + Sync,
    f: impl Fn(&mut C, usize) -> T + Sync,
) -> Result<Vec<T>, Cancelled> {
    let (next, stopped) = (AtomicUsize::new(0), AtomicBool::new(false));
    let done = std::sync::Mutex::new(Vec::with_capacity(count));
    executor.run(&|| {
        let (mut scratch, mut mine) = (scratch(), Vec::new());
        loop {
            if executor.cancelled() {
                stopped.store(true, Ordering::Relaxed);
                break;
            }
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= count {
                break;
            }
            mine.push((i, f(&mut scratch, i)));
        }
        done.lock().expect("workers do not panic").append(&mut mine);
    });
    if stopped.load(Ordering::Relaxed) {
        return Err(Cancelled);
    }
    let mut done = done.into_inner().expect("workers do not panic");
    done.sort_unstable_by_key(|&(i, _)| i);
    Ok(done.into_iter().map(|(_, value)| value).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_and_cancelling_stops() {
        let cancel = AtomicBool::new(false);
        let threads = Threads::new(3, &cancel);
        assert_eq!(map(&threads, 1000, || (), |(), i| i * 2), Ok((0..1000).map(|i| i * 2).collect()));
        let result = map(
            &threads,
            1000,
            || (),
            |(), i| cancel.store(i == 10 || cancel.load(Ordering::Relaxed), Ordering::Relaxed),
        );
        assert_eq!(result, Err(Cancelled));
    }
}
