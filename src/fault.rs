//! Failures on demand, to prove that everything survives them. Only a build with debug assertions has them: in a
//! release [`point`] is nothing, and the settings do not exist.
//!
//! `SET imgvec.fault_at = n` makes the n-th point fail that this backend passes from then on, once, in the manner of
//! `imgvec.fault_kind`; with `imgvec.fault_place`, the n-th of that place. The log names the place. With the largest n it
//! tells every point that is passed. A point belongs before or after each call of the server that
//! can raise an error. It must not be passed by another thread than the backend's own, nor where no error may be
//! raised: in a `Drop`, or in a critical section.

#[cfg(not(debug_assertions))]
mod disarmed {
    pub fn define() {}

    #[inline(always)]
    #[allow(clippy::inline_always, reason = "it is nothing")]
    pub fn point(_place: &str) {}
}
#[cfg(not(debug_assertions))]
pub use disarmed::{define, point};

#[cfg(debug_assertions)]
pub use armed::{define, point};

#[cfg(debug_assertions)]
mod armed {
    use crate::error::{Code, Report};
    use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
    use pgrx::pg_sys;
    use std::cell::Cell;
    use std::ffi::CString;

    static AT: GucSetting<i32> = GucSetting::<i32>::new(0);
    static KIND: GucSetting<i32> = GucSetting::<i32>::new(0);

    static PLACE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));

    thread_local! {
        /// The number and the kind that the count belongs to, and the points passed since they are in force.
        static PASSED: Cell<((i32, i32), i32)> = const { Cell::new(((0, 0), 0)) };
    }

    /// Registers the settings, which no list shows.
    pub fn define() {
        let flags = GucFlags::NO_SHOW_ALL | GucFlags::DISALLOW_IN_FILE;
        GucRegistry::define_int_guc(
            c"imgvec.fault_at",
            c"Sets which point of the code fails, counted from the setting on.",
            c"0 lets none fail.",
            &AT,
            0,
            i32::MAX,
            GucContext::Suset,
            flags,
        );
        GucRegistry::define_int_guc(
            c"imgvec.fault_kind",
            c"Sets how the point fails.",
            c"0: an error, 1: a panic, 2: a request to cancel arrives, 3: memory is exhausted, 4: nothing goes on until the session is ended.",
            &KIND,
            0,
            4,
            GucContext::Suset,
            flags,
        );
        GucRegistry::define_string_guc(
            c"imgvec.fault_place",
            c"Sets the place whose points count.",
            c"When empty, all count.",
            &PLACE,
            GucContext::Suset,
            flags,
        );
    }

    /// A place that may be told to fail.
    pub fn point(place: &str) {
        let settings = (AT.get(), KIND.get());
        if settings.0 == 0 {
            PASSED.set((settings, 0));
            return;
        }
        let only = PLACE.get().unwrap_or_default();
        if !only.is_empty() && only.to_bytes() != place.as_bytes() {
            return;
        }
        let (counted, passed) = PASSED.get();
        let passed = if settings == counted { passed.saturating_add(1) } else { 1 };
        PASSED.set((settings, passed));
        if settings.0 == i32::MAX {
            tell(format!("point {passed}: {place}"));
        } else if passed == settings.0 {
            fail(place, settings.1);
        }
    }

    #[cold]
    fn tell(message: String) {
        Report::new(Code::ERRCODE_SUCCESSFUL_COMPLETION, message).log();
    }

    #[cold]
    fn fail(place: &str, kind: i32) {
        tell(format!("fault of kind {kind}: {place}"));
        match kind {
            0 => Report::new(Code::ERRCODE_INTERNAL_ERROR, format!("injected fault: {place}")).raise(),
            1 => panic!("injected fault: {place}"),
            // SAFETY: flags that the server's signal handlers set in this way.
            2 => unsafe {
                std::ptr::write_volatile(&raw mut pg_sys::QueryCancelPending, 1);
                std::ptr::write_volatile(&raw mut pg_sys::InterruptPending, 1);
            },
            // Whoever wants to know what a kill leaves behind at this point kills now.
            // SAFETY: a flag that the server's signal handlers set.
            4 => unsafe {
                while std::ptr::read_volatile(&raw const pg_sys::ProcDiePending) == 0 {
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
            },
            // SAFETY: more than any address space holds: an error of the server's own, which leaves by its own way.
            _ => unsafe {
                pg_sys::MemoryContextAllocHuge(pg_sys::CurrentMemoryContext, 1 << 48);
            },
        }
    }
}
