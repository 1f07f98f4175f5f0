//! Trying what may fail without failing the statement.

use super::passing;
use crate::error::Report;
use crate::fault;
use pgrx::pg_sys;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Runs `work` in a subtransaction. `None` undoes what it did and gives back what it held; so does an error, which
/// goes on from here.
///
/// No error may leave the subtransaction open: the ROLLBACK that follows would end the session.
pub fn attempt<T>(work: impl FnOnce() -> Option<T>) -> Option<T> {
    // SAFETY: context and resource owner are put back as the server's own languages do, whatever happens.
    unsafe {
        let (context, owner) = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
        let progress = Progress::of_this_backend();
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(context);
        let result = catch_unwind(AssertUnwindSafe(work));
        pg_sys::MemoryContextSwitchTo(context);
        if let Ok(Some(_)) = result {
            pg_sys::ReleaseCurrentSubTransaction();
        } else {
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
        }
        pg_sys::MemoryContextSwitchTo(context);
        pg_sys::CurrentResourceOwner = owner;
        match result {
            Ok(Some(value)) => Some(value),
            Ok(None) => {
                progress.put_back();
                None
            }
            Err(error) => resume_unwind(error),
        }
    }
}

/// What this backend reports of its command's progress: the rollback of a subtransaction would end the report.
struct Progress {
    command: pg_sys::ProgressCommandType::Type,
    target: pg_sys::Oid,
    parameters: [i64; 20],
}

impl Progress {
    fn of_this_backend() -> Self {
        // SAFETY: the entry is this backend's own; only this process writes it.
        match unsafe { pg_sys::MyBEEntry.as_ref() } {
            Some(entry) => Self {
                command: entry.st_progress_command,
                target: entry.st_progress_command_target,
                parameters: entry.st_progress_param,
            },
            None => Self {
                command: pg_sys::ProgressCommandType::PROGRESS_COMMAND_INVALID,
                target: pg_sys::InvalidOid,
                parameters: [0; 20],
            },
        }
    }

    fn put_back(&self) {
        if self.command == pg_sys::ProgressCommandType::PROGRESS_COMMAND_INVALID {
            return;
        }
        // SAFETY: writes this backend's progress. Starting sets all parameters to zero.
        unsafe {
            pg_sys::pgstat_progress_start_command(self.command, self.target);
            for (number, &value) in (0..).zip(&self.parameters) {
                if value != 0 {
                    pg_sys::pgstat_progress_update_param(number, value);
                }
            }
        }
    }
}

/// Runs `work` in a subtransaction, and answers the error that ended it and undid it, or a bug's panic, whose place is in the
/// log then. A request to cancel goes on from here.
pub fn caught<T>(work: impl FnOnce() -> T) -> Result<T, Report> {
    caught_with_interrupts(work).map_err(|report| {
        pgrx::check_for_interrupts!();
        if report.is_interrupt() {
            report.raise();
        }
        report
    })
}

/// The same, but a request to cancel is answered like any other error: for a worker, which then ends in its own way.
pub fn caught_with_interrupts<T>(work: impl FnOnce() -> T) -> Result<T, Report> {
    fault::point("begin a subtransaction");
    // SAFETY: as in `attempt`. The server's error was copied and its state flushed before it became a panic.
    unsafe {
        let (context, owner) = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(context);
        passing::keep();
        #[expect(clippy::result_large_err, reason = "the error that the builder catches is the binding's")]
        let begun = || {
            fault::point("work in a subtransaction");
            let result = work();
            fault::point("end a subtransaction");
            Ok(result)
        };
        let result = pg_sys::PgTryBuilder::new(AssertUnwindSafe(begun)).catch_others(Err).execute();
        pg_sys::MemoryContextSwitchTo(context);
        if result.is_ok() {
            pg_sys::ReleaseCurrentSubTransaction();
        } else {
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
        }
        pg_sys::MemoryContextSwitchTo(context);
        pg_sys::CurrentResourceOwner = owner;
        result.map_err(Report::from)
    }
}
