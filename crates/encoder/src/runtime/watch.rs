//! Stopping an inference that runs on another thread.
//!
//! One thread per process looks at the interrupt checks of the runs that are under way and tells ONNX
//! Runtime to stop the ones that are no longer wanted. Announcing a run must cost little, since the
//! shortest take 50 microseconds: while the thread is awake, announcing is one uncontended lock. It
//! stays awake, looking every few milliseconds, for a short time after the last run; only then does
//! it sleep until it is called, which costs a system call.
//!
//! The thread also looks at the memory of runs that may take much: it keeps the largest amount that it
//! saw, from which later runs are planned, and stops a run that takes more than it may. That is the last
//! resort, for an operator ends before ONNX Runtime stops.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::{RuntimeError, threads};
use crate::interrupt::InterruptCheck;
use crate::memory;

/// How often the checks are looked at. Cancelling is expected within a second; the rest of that is
/// for ONNX Runtime, which stops after the operator that it is computing.
const POLL: Duration = Duration::from_millis(15);
/// How often the memory of a run is looked at; a look takes about 5 microseconds.
const MEMORY_POLL: Duration = Duration::from_millis(2);
/// The same for the first run of a graph, from which later ones are planned.
const CLOSE_POLL: Duration = Duration::from_micros(300);
/// Rounds without a run before the thread sleeps: about 0.3 s.
const IDLE_ROUNDS: u32 = 20;

type Stop = Arc<dyn Fn() + Send + Sync>;

/// Private memory of the process during a run, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct MemoryWatch {
    /// What there was before it.
    pub base: u64,
    /// What it may add.
    pub limit: u64,
    /// Whether nothing is known of the graph yet.
    pub is_first: bool,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ended {
    /// It was told to stop, as nobody wants it any more.
    pub interrupted: bool,
    /// It was told to stop, as it took too much memory.
    pub over_limit: bool,
    /// The most private memory that was seen to be added, in bytes.
    pub grown: u64,
    /// How often its memory was looked at.
    pub looks: u32,
}

struct Watched {
    id: u64,
    check: InterruptCheck,
    stop: Stop,
    memory: Option<MemoryWatch>,
    ended: Ended,
}

impl Watched {
    fn look(&mut self) {
        if let Some(watch) = self.memory
            && let Some(now) = memory::private_bytes()
        {
            self.ended.grown = self.ended.grown.max(now.saturating_sub(watch.base));
            self.ended.looks = self.ended.looks.saturating_add(1);
            self.stop_if(self.ended.grown > watch.limit, |ended| ended.over_limit = true);
        }
        self.stop_if((self.check)(), |ended| ended.interrupted = true);
    }

    fn stop_if(&mut self, unwanted: bool, reason: impl FnOnce(&mut Ended)) {
        if unwanted && !self.ended.interrupted && !self.ended.over_limit {
            (self.stop)();
            reason(&mut self.ended);
        }
    }
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
                state.watched.iter_mut().for_each(Watched::look);
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
            let polls = state.watched.iter().filter_map(|watched| watched.memory);
            let polls = polls.map(|memory| if memory.is_first { CLOSE_POLL } else { MEMORY_POLL });
            let poll = polls.min().unwrap_or(POLL);
            state = self.wake.wait_timeout(state, poll).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A run that is under way. Ends the watching when dropped.
pub(super) struct Watching {
    watcher: &'static Watcher,
    id: u64,
}

impl Watching {
    /// Starts watching: once `check` returns true or the run takes more than `memory` says, `stop` is
    /// called, and not after this is dropped.
    pub(super) fn start(
        check: InterruptCheck,
        memory: Option<MemoryWatch>,
        stop: Stop,
    ) -> Result<Self, RuntimeError> {
        let watcher = Watcher::get()?;
        let mut state = watcher.lock();
        let id = state.next_id;
        state.next_id += 1;
        state.watched.push(Watched { id, check, stop, memory, ended: Ended::default() });
        // Whoever measures does not wait for the end of the present round.
        if state.asleep || memory.is_some() {
            watcher.wake.notify_one();
        }
        drop(state);
        Ok(Watching { watcher, id })
    }

    /// Ends the watching and says whether the run was told to stop, and why.
    pub(super) fn end(self) -> Ended {
        self.remove()
    }

    fn remove(&self) -> Ended {
        let mut state = self.watcher.lock();
        let place = state.watched.iter().position(|watched| watched.id == self.id);
        place.map(|place| state.watched.swap_remove(place).ended).unwrap_or_default()
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

        let calm = Watching::start(check, None, Arc::clone(&stop)).unwrap();
        std::thread::sleep(4 * POLL);
        assert!(!calm.end().interrupted);
        assert_eq!(stops.load(Ordering::SeqCst), 0);

        let run = Watching::start(check, None, Arc::clone(&stop)).unwrap();
        WANTED.store(true, Ordering::SeqCst);
        let start = Instant::now();
        while stops.load(Ordering::SeqCst) == 0 && start.elapsed() < Duration::from_secs(5) {
            std::thread::yield_now();
        }
        std::thread::sleep(4 * POLL);
        assert!(run.end().interrupted);
        assert_eq!(stops.load(Ordering::SeqCst), 1);

        // After a sleep longer than the idle rounds the thread is woken again.
        std::thread::sleep((IDLE_ROUNDS + 5) * POLL);
        let run = Watching::start(check, None, stop).unwrap();
        std::thread::sleep(20 * POLL);
        assert!(run.end().interrupted);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_of_a_run_is_measured_and_limited() {
        let stops = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&stops);
        let stop: Stop = Arc::new(move || {
            counter.fetch_add(1, Ordering::SeqCst);
        });
        let base = memory::private_bytes().unwrap();
        let watch = MemoryWatch { base, limit: 32 << 20, is_first: false };
        let run = Watching::start(crate::interrupt::never_interrupted, Some(watch), stop).unwrap();
        let block = std::hint::black_box(vec![1_u8; 64 << 20]);
        let start = Instant::now();
        while stops.load(Ordering::SeqCst) == 0 && start.elapsed() < Duration::from_secs(60) {
            std::thread::yield_now();
        }
        drop(block);
        let ended = run.end();
        assert!(ended.over_limit && !ended.interrupted && ended.grown > 32 << 20, "{ended:?}");
    }
}
