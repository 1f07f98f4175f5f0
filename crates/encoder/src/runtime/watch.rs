//! Stopping an inference that runs on another thread.
//!
//! One thread per process looks at the interrupt checks of the runs that are under way and tells ONNX
//! Runtime to stop the ones that are no longer wanted. Announcing a run must cost little, since the
//! shortest take 50 microseconds: while the thread is awake, announcing is one uncontended lock. It
//! stays awake, looking every few milliseconds, for a short time after the last run; only then does
//! it sleep until it is called, which costs a system call.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::{RuntimeError, threads};
use crate::interrupt::InterruptCheck;

/// How often the checks are looked at. Cancelling is expected within a second; the rest of that is
/// for ONNX Runtime, which stops after the operator that it is computing.
const POLL: Duration = Duration::from_millis(15);
/// Rounds without a run before the thread sleeps: about 0.3 s.
const IDLE_ROUNDS: u32 = 20;

type Stop = Arc<dyn Fn() + Send + Sync>;

struct Watched {
    id: u64,
    check: InterruptCheck,
    stop: Stop,
    stopped: bool,
}

#[derive(Default)]
struct State {
    watched: Vec<Watched>,
    next_id: u64,
    asleep: bool,
}

#[derive(Default)]
struct Watcher {
    state: Mutex<State>,
    wake: Condvar,
}

static WATCHER: OnceLock<&'static Watcher> = OnceLock::new();
static STARTING: Mutex<()> = Mutex::new(());

impl Watcher {
    fn get() -> Result<&'static Watcher, RuntimeError> {
        if let Some(watcher) = WATCHER.get() {
            return Ok(watcher);
        }
        let _starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watcher) = WATCHER.get() {
            return Ok(watcher);
        }
        // Never freed: the thread uses it until the process ends.
        let watcher: &'static Watcher = Box::leak(Box::default());
        threads::spawn("imgvec watch", move || watcher.watch())?;
        Ok(WATCHER.get_or_init(|| watcher))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self) -> ! {
        let mut idle = 0;
        let mut state = self.lock();
        loop {
            if !state.watched.is_empty() {
                idle = 0;
                for watched in state.watched.iter_mut().filter(|watched| !watched.stopped) {
                    if (watched.check)() {
                        (watched.stop)();
                        watched.stopped = true;
                    }
                }
            } else if idle < IDLE_ROUNDS {
                idle += 1;
            } else {
                state.asleep = true;
                state = self
                    .wake
                    .wait_while(state, |state| state.watched.is_empty())
                    .unwrap_or_else(PoisonError::into_inner);
                state.asleep = false;
                idle = 0;
            }
            state = self.wake.wait_timeout(state, POLL).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A run that is under way. Ends the watching when dropped.
pub(super) struct Watching {
    watcher: &'static Watcher,
    id: u64,
}

impl Watching {
    /// Starts watching: once `check` returns true, `stop` is called, and not after this is dropped.
    pub(super) fn start(check: InterruptCheck, stop: Stop) -> Result<Self, RuntimeError> {
        let watcher = Watcher::get()?;
        let mut state = watcher.lock();
        let id = state.next_id;
        state.next_id += 1;
        state.watched.push(Watched { id, check, stop, stopped: false });
        if state.asleep {
            watcher.wake.notify_one();
        }
        drop(state);
        Ok(Watching { watcher, id })
    }

    /// Ends the watching and says whether the run was told to stop.
    pub(super) fn end(self) -> bool {
        self.remove()
    }

    fn remove(&self) -> bool {
        let mut state = self.watcher.lock();
        let place = state.watched.iter().position(|watched| watched.id == self.id);
        place.is_some_and(|place| state.watched.swap_remove(place).stopped)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.remove();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::Instant;

    use super::*;

    static WANTED: AtomicBool = AtomicBool::new(false);

    #[test]
    fn a_run_is_stopped_once_and_never_after_its_end() {
        let stops = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&stops);
        let stop: Stop = Arc::new(move || {
            counter.fetch_add(1, Ordering::SeqCst);
        });
        let check = || WANTED.load(Ordering::SeqCst);

        let calm = Watching::start(check, Arc::clone(&stop)).unwrap();
        std::thread::sleep(4 * POLL);
        assert!(!calm.end());
        assert_eq!(stops.load(Ordering::SeqCst), 0);

        let run = Watching::start(check, Arc::clone(&stop)).unwrap();
        WANTED.store(true, Ordering::SeqCst);
        let start = Instant::now();
        while stops.load(Ordering::SeqCst) == 0 && start.elapsed() < Duration::from_secs(5) {
            std::thread::yield_now();
        }
        std::thread::sleep(4 * POLL);
        assert!(run.end());
        assert_eq!(stops.load(Ordering::SeqCst), 1);

        // After a sleep longer than the idle rounds the thread is woken again.
        std::thread::sleep((IDLE_ROUNDS + 5) * POLL);
        let run = Watching::start(check, stop).unwrap();
        std::thread::sleep(20 * POLL);
        assert!(run.end());
    }
}
