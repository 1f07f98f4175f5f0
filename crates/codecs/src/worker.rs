//! A thread that takes no signals, and that its caller can leave behind.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};

use crate::contain::{self, Hears};
use crate::signals::SignalsBlocked;

/// rav1d keeps tables of a block on its stack. Only touched pages count.
const STACK_BYTES: usize = 8 << 20;
/// How often a caller that waits asks whether to stop.
const POLL: Duration = Duration::from_millis(5);
/// How long a process that ends waits for a thread that was left behind. The limit on pixels makes it a few seconds at most.
const LAST_WAIT: Duration = Duration::from_secs(20);

/// Threads of this process that were left behind and still run.
static LEFT_BEHIND: AtomicUsize = AtomicUsize::new(0);

/// Tells a thread that nobody waits for its result.
#[derive(Clone)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why work has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// The caller's check returned true.
    Interrupted,
    /// The system refused a thread.
    NoThread,
    /// The work panicked.
    GaveUp(String),
}

struct Shared<T> {
    state: Mutex<State<T>>,
    has_ended: Condvar,
}

enum State<T> {
    Runs,
    Ended(Result<T, Lost>),
    /// The caller has gone.
    LeftBehind,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing panics while it is locked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last thing that the thread does here.
    fn end(&self, result: Result<T, Lost>) {
        let mut state = self.lock();
        if matches!(*state, State::LeftBehind) {
            LEFT_BEHIND.fetch_sub(1, Ordering::Relaxed);
        }
        let former = std::mem::replace(&mut *state, State::Ended(result));
        drop(state);
        drop(former);
        self.has_ended.notify_all();
    }
}

impl<T: Send> Hears for Shared<T> {
    fn panicked(&self, message: &str) {
        self.end(Err(Lost::GaveUp(message.to_owned())));
    }
}

/// Runs `work` on a thread, and waits for it until `interrupt` returns true.
pub(crate) fn run<T: Send + 'static>(
    name: &str,
    interrupt: fn() -> bool,
    work: impl FnOnce(Stop) -> T + Send + 'static,
) -> Result<T, Lost> {
    contain::install();
    if contain::is_worn() {
        return Err(Lost::GaveUp("it failed several times in this process".to_owned()));
    }
    while LEFT_BEHIND.load(Ordering::Relaxed) > 0 {
        if interrupt() {
            return Err(Lost::Interrupted);
        }
        std::thread::sleep(POLL);
    }
    let stop = Stop(Arc::new(AtomicBool::new(false)));
    let shared = Arc::new(Shared { state: Mutex::new(State::Runs), has_ended: Condvar::new() });
    let of_thread = (stop.clone(), Arc::clone(&shared));
    spawn(name, move || {
        let (stop, shared) = of_thread;
        contain::panics_of_this_thread(shared.clone());
        shared.end(Ok(work(stop)));
    })
    .map_err(|_| Lost::NoThread)?;

    let mut state = shared.lock();
    loop {
        if matches!(*state, State::Ended(_)) {
            return match std::mem::replace(&mut *state, State::LeftBehind) {
                State::Ended(result) => result,
                State::Runs | State::LeftBehind => Err(Lost::Interrupted),
            };
        }
        if interrupt() {
            stop.0.store(true, Ordering::Relaxed);
            LEFT_BEHIND.fetch_add(1, Ordering::Relaxed);
            *state = State::LeftBehind;
            return Err(Lost::Interrupted);
        }
        (state, _) = shared.has_ended.wait_timeout(state, POLL).unwrap_or_else(PoisonError::into_inner);
    }
}

/// Lets this process, when it ends, wait for threads that were left behind. What is loaded before this call is taken apart after the wait.
pub(crate) fn wait_at_exit() {
    extern "C" fn wait() {
        let end = Instant::now() + LAST_WAIT;
        while LEFT_BEHIND.load(Ordering::Relaxed) > 0 {
            if Instant::now() > end {
                // SAFETY: it ends the process without looking at anything.
                unsafe { nix::libc::_exit(1) };
            }
            std::thread::sleep(POLL);
        }
    }
    // SAFETY: the function neither unwinds nor goes away. If there is no room for it, a process that ends early may crash, as before.
    let _ = unsafe { nix::libc::atexit(wait) };
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let _blocked = SignalsBlocked::new()?;
    Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(work).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a function of rav1d: what unwinds out of it would end the process.
    extern "C" fn may_not_unwind(place: usize) -> u8 {
        [1, 2][place]
    }

    /// Set in the process that panics.
    const CHILD: &str = "IMGVEC_CODECS_TEST_CHILD";

    /// In a process of its own, which ends itself: the harness takes the panic hook at its end, and would wait for the threads that
    /// sleep in it.
    #[test]
    fn a_panic_that_may_not_unwind_is_an_error_and_a_stopped_thread_is_waited_for() {
        if std::env::var_os(CHILD).is_some() {
            panics_and_stops();
            std::process::exit(0);
        }
        let name =
            "worker::tests::a_panic_that_may_not_unwind_is_an_error_and_a_stopped_thread_is_waited_for";
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
        // The harness prints nothing of a test that ends the process: it ran, and ran to its end.
        assert!(String::from_utf8_lossy(&child.stdout).contains("running 1 test"));
    }

    fn panics_and_stops() {
        let result = run("panics", || false, |_| may_not_unwind(7));
        let Err(Lost::GaveUp(message)) = result else { panic!("{result:?}") };
        assert!(message.contains("out of bounds"), "{message}");
        assert_eq!(run("works", || false, |_| 2), Ok(2));

        let until_stopped = |stop: Stop| {
            while !stop.is_set() {
                std::thread::sleep(POLL);
            }
            std::thread::sleep(10 * POLL);
        };
        assert_eq!(run("stops", || true, until_stopped), Err(Lost::Interrupted));
        // While the one left behind still runs, another one may be stopped, too.
        assert_eq!(run("waits", || true, |_| ()), Err(Lost::Interrupted));
        assert_eq!(run("works", || false, |_| 3), Ok(3));
        assert_eq!(LEFT_BEHIND.load(Ordering::Relaxed), 0);

        // As many as may sleep, and nothing is risked after them.
        for _ in 1..4 {
            assert!(matches!(run("panics", || false, |_| may_not_unwind(2)), Err(Lost::GaveUp(_))));
        }
        let result = run("works", || false, |_| 4);
        assert_eq!(result, Err(Lost::GaveUp("it failed several times in this process".to_owned())));
    }
}
