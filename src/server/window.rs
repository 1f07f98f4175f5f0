//! The rows of a window function's partition.

use super::passing;
use super::raw::{self, WindowObject};
use crate::error::{Code, Report};
use crate::fault;
use pgrx::{PgMemoryContexts, pg_sys};
use std::ptr::NonNull;

/// A call of a window function, for one row.
#[derive(Clone, Copy)]
pub struct Window(WindowObject);

/// What a partition keeps: the answers follow.
#[repr(C, align(8))]
struct Kept {
    is_filled: bool,
}

impl Window {
    /// Raises an error outside of a window, where only SQL of a user's own can call.
    ///
    /// # Safety
    /// The call's own information.
    pub unsafe fn of_call(call: pg_sys::FunctionCallInfo) -> Self {
        passing::keep();
        // SAFETY: by contract; the context is NULL or a node, whose tag determines what it is.
        unsafe {
            let context = (*call).context;
            let is_window =
                context.as_ref().is_some_and(|node| node.type_ == pg_sys::NodeTag::T_WindowObjectData);
            match NonNull::new(context) {
                Some(context) if is_window => Self(WindowObject::new(context.cast())),
                _ => Report::new(
                    Code::ERRCODE_WINDOWING_ERROR,
                    "a window function was called as a plain function",
                )
                .detail("It was declared again, without WINDOW.")
                .hint("Call the function of the extension, with OVER.")
                .raise(),
            }
        }
    }

    /// Rows of the partition.
    pub fn row_count(self) -> usize {
        usize::try_from(raw::window_row_count(self.0)).expect("a count")
    }

    /// Calls `each` with argument `argument` of every row, in the window's order. What the server allocates meanwhile goes
    /// after each row.
    pub fn each(self, argument: i32, mut each: impl FnMut(usize, pg_sys::Datum, bool)) {
        let mut context = PgMemoryContexts::new("a row of the partition");
        for row in 0..self.row_count() {
            pgrx::check_for_interrupts!();
            fault::point("read a row of the partition");
            let at = i32::try_from(row).unwrap_or_else(|_| too_many_rows(row));
            // SAFETY: nothing of the context is kept beyond the call.
            unsafe {
                context.switch_to(|_| {
                    let (value, is_null) = raw::window_argument(self.0, argument, at);
                    each(row, value, is_null);
                });
                context.reset();
            }
        }
    }

    /// Argument `argument` of the row that the call is for.
    pub fn current(self, argument: i32) -> Option<pg_sys::Datum> {
        let (value, is_null) = raw::window_current_argument(self.0, argument);
        (!is_null).then_some(value)
    }

    /// The answer for the row that the call is for. `compute` gives those of all rows, once in a partition.
    pub fn answer<T: Copy>(self, compute: impl FnOnce() -> Vec<Option<T>>) -> Option<T> {
        const { assert!(align_of::<Option<T>>() <= align_of::<Kept>(), "answers follow the head") };
        let rows = self.row_count();
        let bytes = size_of::<Kept>() + rows.saturating_mul(size_of::<Option<T>>());
        // MaxAllocSize of the server.
        if bytes > 0x3fff_ffff {
            too_many_rows(rows);
        }
        // SAFETY: so many zeroed bytes, aligned for any type, that live as long as the partition; its size is the same in
        // each call. The answers are written before the mark that they are there.
        unsafe {
            let kept: *mut Kept = raw::window_memory(self.0, bytes).cast();
            let answers: *mut Option<T> = kept.add(1).cast();
            if !(*kept).is_filled {
                let computed = compute();
                fault::point("keep the partition's answers");
                assert_eq!(computed.len(), rows, "an answer for each row");
                answers.copy_from_nonoverlapping(computed.as_ptr(), rows);
                (*kept).is_filled = true;
            }
            let at = usize::try_from(raw::window_position(self.0)).expect("a position");
            assert!(at < rows, "a row of the partition");
            answers.add(at).read()
        }
    }
}

fn too_many_rows(rows: usize) -> ! {
    Report::new(Code::ERRCODE_PROGRAM_LIMIT_EXCEEDED, "too many rows in a window partition")
        .detail(format!("There are at least {rows}."))
        .hint("Divide the rows with PARTITION BY.")
        .raise()
}
