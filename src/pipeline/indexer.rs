//! A background worker that builds the indexes of a column that is to take another one's place.
//!
//! CREATE INDEX CONCURRENTLY consists of several transactions, each of which waits for others, so the server lets neither
//! functions nor procedures run it. `imgvec_migrate` starts this worker and waits, in a transaction that holds nothing.

use super::column::{Column, Extension};
use super::query::qualified;
use super::successor::{self, State};
use super::work::note_error;
use super::workers::builder;
use crate::error::Report;
use crate::server::process::{self, Database};
use crate::server::utility::Statement;
use crate::server::{security, spi};
use pgrx::bgworkers::{BackgroundWorker, BackgroundWorkerStatus, DynamicBackgroundWorker};
use pgrx::{IntoDatum, pg_sys, prelude::*};
use std::time::Duration;

/// What pg_stat_activity calls it.
const KIND: &str = "imgvec index builder";
/// How often to look whether it has ended.
const LOOK: Duration = Duration::from_millis(20);
/// How often to look whether another one builds the same.
const WAIT: Duration = Duration::from_millis(200);

/// Settings of the session that asks which a build follows.
const SETTINGS: [&std::ffi::CStr; 2] = [c"maintenance_work_mem", c"max_parallel_maintenance_workers"];

/// A worker that is ended with the call that waits for it.
struct Running(Option<DynamicBackgroundWorker>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(worker) = self.0.take() {
            // Its build is of no use without us: the next call begins it again.
            worker.terminate();
        }
    }
}

/// Builds the missing indexes of a table's column in a worker, and waits until it has ended. Tells whether one could be had.
pub fn build(table: pg_sys::Oid, column: i16) -> bool {
    let settings = SETTINGS.map(process::setting).join(" ");
    // SAFETY: plain reads of the session's state.
    let (database, process) = unsafe { (pg_sys::MyDatabaseId.to_u32(), pg_sys::MyProcPid) };
    let worker = builder(KIND, "imgvec_indexer_main")
        .set_restart_time(None)
        .set_argument(i64::from(database).into_datum())
        .set_extra(&format!("{} {column} {settings}", table.to_u32()))
        .set_notify_pid(process)
        .load_dynamic();
    let Ok(worker) = worker else { return false };
    let mut running = Running(Some(worker));
    loop {
        let status = running.0.as_ref().map(DynamicBackgroundWorker::pid);
        match status {
            Some(Ok(_) | Err(BackgroundWorkerStatus::NotYetStarted)) => process::wait(LOOK),
            _ => break,
        }
    }
    running.0 = None;
    true
}

/// Where the worker begins. It ends by returning; what is missing then, could not be built, as the column's log tells.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn imgvec_indexer_main(argument: pg_sys::Datum) {
    let extra = BackgroundWorker::get_extra();
    let mut words = extra.split(' ');
    let mut number = || words.next().and_then(|word| word.parse::<u32>().ok()).unwrap_or(0);
    let (table, column) = (pg_sys::Oid::from(number()), i16::try_from(number()).unwrap_or(0));
    process::connect_worker(&Database::Oid(pg_sys::Oid::from(u32::try_from(argument.value()).unwrap_or(0))));
    process::set(c"search_path", "pg_catalog, pg_temp");
    for (name, value) in SETTINGS.into_iter().zip(words) {
        process::set(name, value);
    }
    process::until_stopped(|| build_missing(table, column));
}

fn build_missing(table: pg_sys::Oid, column: i16) {
    let Some(owner) = process::transaction("looking for work", || Some(pair(table, column)?.1.table.owner))
    else {
        return;
    };
    process::become_user(owner);
    // An index that cannot be built is tried once.
    while !process::is_stopping() {
        let next = process::transaction("looking for work", || next_statement(table, column));
        let result = match next {
            Next::Nothing => return,
            Next::Wait => {
                process::sleep(WAIT);
                continue;
            }
            Next::Run(statement) => statement.run(),
        };
        if let Err(report) = result {
            if report.is_interrupt() {
                return;
            }
            process::transaction("noting an error", || note(table, column, &report));
            return;
        }
    }
}

enum Next {
    Nothing,
    /// Another session builds it.
    Wait,
    Run(Statement),
}

/// The column of a migration, the old one first.
fn pair(table: pg_sys::Oid, column: i16) -> Option<(Extension, Column, Column)> {
    security::pinned(|| {
        let extension = Extension::try_find()?;
        let columns = Column::all(&extension, Some(table));
        let next = columns.iter().find(|it| successor::number(it) == column)?.clone();
        let old = columns.iter().find(|it| Some(it.target()) == next.predecessor())?.clone();
        Some((extension, old, next))
    })
}

fn next_statement(table: pg_sys::Oid, column: i16) -> Next {
    let Some((_, old, next)) = pair(table, column) else { return Next::Nothing };
    security::pinned(|| {
        let followers = successor::followers(&old, &next);
        let Some(follower) = followers.into_iter().find(|follower| follower.state != State::Valid) else {
            return Next::Nothing;
        };
        if follower.state == State::Missing {
            return Next::Run(successor::create_statement(&old, &next, &follower));
        }
        // What a crash left behind is of no use; what is being built is.
        let is_building =
            "SELECT FROM pg_locks l WHERE l.locktype = 'relation' AND l.relation = $1 AND l.granted
            AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND l.mode = 'ShareUpdateExclusiveLock' AND l.pid <> pg_backend_pid()";
        if spi::first(is_building, &[spi::oid(follower.table.oid)], |_| ()).is_some() {
            return Next::Wait;
        }
        let name = qualified(&follower.table.schema, &follower.name);
        Next::Run(Statement::parse(&format!("DROP INDEX CONCURRENTLY {name}")))
    })
}

fn note(table: pg_sys::Oid, column: i16, report: &Report) {
    if let Some((_, _, next)) = pair(table, column) {
        note_error(&next, report);
    }
}
