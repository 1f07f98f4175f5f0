//! Panics that must not unwind.
//!
//! rav1d keeps the C interface of dav1d, inside as outside: a panic in it meets a function that may not unwind, and Rust ends the
//! process then, a database server with all its sessions. The hook on panics runs before that, on the thread that panics. Ours tells the
//! waiting caller, and lets the thread sleep for good. What the thread holds stays allocated, so that only a few may end like this.
//!
//! std holds a lock for reading while a hook runs. So whoever sets or takes a hook after such a panic waits for ever: hooks are set when
//! the library is loaded, and not again. Panics of other threads go on as before.

use std::cell::RefCell;
use std::panic;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once};

/// Threads that may sleep for good in one process.
const MOST: usize = 4;

static ASLEEP: AtomicUsize = AtomicUsize::new(0);

/// Hears of the panic of a thread that it was given to.
pub(crate) trait Hears {
    /// The thread stops at `message` and does not go on.
    fn panicked(&self, message: &str);
}

thread_local! {
    static LISTENER: RefCell<Option<Arc<dyn Hears>>> = const { RefCell::new(None) };
}

/// Whether so many threads sleep that no further one should be risked.
pub(crate) fn is_worn() -> bool {
    ASLEEP.load(Ordering::Relaxed) >= MOST
}

/// Contains panics of this thread from now on, until its end.
pub(crate) fn panics_of_this_thread(listener: Arc<dyn Hears>) {
    LISTENER.with(|slot| *slot.borrow_mut() = Some(listener));
}

/// Puts the hook before whatever hook there is, once. Panics of other threads pass on to that one.
pub(crate) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let next = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let listener = LISTENER.with(|slot| slot.try_borrow().ok().and_then(|slot| slot.clone()));
            let Some(listener) = listener else { return next(info) };
            ASLEEP.fetch_add(1, Ordering::Relaxed);
            let payload = info.payload();
            let message = payload.downcast_ref::<&str>().copied();
            let message = message.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
            listener.panicked(message.unwrap_or("no message"));
            drop(listener);
            loop {
                std::thread::park();
            }
        }));
    });
}
