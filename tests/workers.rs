//! Threads of a build that panic, or whose waiter does: everything ends, and the panic goes on.

#[path = "../src/server/workers.rs"]
mod workers;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Runs `work` and fails if it hangs; a minute is no measure of speed.
fn ends<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let _ = sender.send(work());
    });
    receiver.recv_timeout(Duration::from_secs(60)).expect("it hangs")
}

#[test]
fn a_worker_that_panics_ends_the_others_and_its_panic_goes_on() {
    let (message, was_stopped) = ends(|| {
        let (stop, turn) = (AtomicBool::new(false), AtomicUsize::new(0));
        let job = || {
            assert!(turn.fetch_add(1, Ordering::Relaxed) != 1, "injected");
            while !stop.load(Ordering::Relaxed) {
                thread::yield_now();
            }
        };
        let result = catch_unwind(AssertUnwindSafe(|| workers::run(3, &stop, &job, &mut || ())));
        let panic = result.expect_err("the panic is passed on");
        (panic.downcast_ref::<&str>().map(ToString::to_string), stop.load(Ordering::Relaxed))
    });
    assert_eq!(message.as_deref(), Some("injected"));
    assert!(was_stopped);
}

#[test]
fn an_error_of_the_waiting_thread_stops_the_workers() {
    let ended = ends(|| {
        let (stop, ended) = (AtomicBool::new(false), AtomicUsize::new(0));
        let job = || {
            while !stop.load(Ordering::Relaxed) {
                thread::yield_now();
            }
            ended.fetch_add(1, Ordering::Relaxed);
        };
        let mut look = || panic!("interrupted");
        assert!(catch_unwind(AssertUnwindSafe(|| workers::run(3, &stop, &job, &mut look))).is_err());
        ended.load(Ordering::Relaxed)
    });
    assert_eq!(ended, 3);
}

#[test]
fn work_that_comes_to_its_end_is_not_told_to_stop() {
    let (stop, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    let job = || {
        count.fetch_add(1, Ordering::Relaxed);
    };
    workers::run(4, &stop, &job, &mut || ());
    assert_eq!(count.into_inner(), 4);
    assert!(!stop.into_inner());
}
