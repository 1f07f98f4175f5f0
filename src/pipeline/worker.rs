//! A background worker: works the queues of one database, a batch of each in turn, and sleeps when all are empty.

use super::batch::{Pace, is_conflict};
use super::column::{Column, Extension};
use super::work::{Step, Subject, note_error, shrink, step};
use crate::guc;
use crate::server::process::{self, Database};
use crate::server::{security, spi, subtransaction};
use pgrx::bgworkers::BackgroundWorker;
use pgrx::prelude::*;
use std::collections::HashMap;
use std::ffi::CString;
use std::time::{Duration, Instant};

/// How often an idle worker looks whether its database is to be dropped.
const LOOK_UP: Duration = Duration::from_secs(1);
/// How often it looks at all queues without having been woken: a retry may be due, and a wake-up is no promise.
const LOOK_AROUND: Duration = Duration::from_secs(15);
/// How long a column rests after an error that concerns all of its rows, at first and at most.
const REST: Duration = Duration::from_secs(5);
const LONGEST_REST: Duration = Duration::from_secs(300);

/// How long a batch waits for a lock on its table.
const LOCK_TIMEOUT: &str = "1s";

/// A column's table and queue.
type Name = (u32, (String, String));

/// What a worker remembers of a column.
struct Memory {
    pace: Pace,
    errors: u32,
    rests_until: Option<Instant>,
}

/// Where a worker begins. It ends by returning.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn imgvec_worker_main(argument: pg_sys::Datum) {
    let name = BackgroundWorker::get_extra();
    let database = if name.is_empty() {
        Database::Oid(pg_sys::Oid::from(u32::try_from(argument.value()).unwrap_or(0)))
    } else {
        Database::Name(CString::new(name).unwrap_or_default())
    };
    process::connect_worker(&database);
    process::be_nice(guc::worker_nice());
    // Whoever locks one table for long keeps the others from nothing.
    process::set(c"lock_timeout", LOCK_TIMEOUT);
    process::until_stopped(work);
}

fn work() {
    let mut memories = HashMap::new();
    let mut looked = Instant::now();
    let mut is_woken = true;
    while !process::is_stopping() {
        process::reload_if_asked();
        if process::transaction("looking for work", is_in_the_way) {
            process::end_to_restart();
        }
        if is_woken || looked.elapsed() >= LOOK_AROUND {
            looked = Instant::now();
            let has_worked = round(&mut memories);
            if has_worked {
                is_woken = true;
                continue;
            }
        }
        if process::is_stopping() {
            break;
        }
        is_woken = process::sleep(LOOK_UP);
    }
}

/// Whether somebody waits to drop, rename or copy this database, which nobody may be connected to then.
fn is_in_the_way() -> bool {
    let sql = "SELECT FROM pg_locks WHERE locktype = 'object' AND database = 0 AND classid = 'pg_database'::regclass
        AND objid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND pid <> pg_backend_pid()
        AND mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')";
    security::pinned(|| spi::first(sql, &[], |_| ()).is_some())
}

/// A batch of each column that has work; returns whether there was any.
fn round(memories: &mut HashMap<Name, Memory>) -> bool {
    let columns = process::transaction("looking for work", || {
        security::pinned(|| {
            let is_there = "SELECT FROM pg_extension WHERE extname = 'imgvec'";
            if spi::first(is_there, &[], |_| ()).is_none() || crate::server::is_standby() {
                return Vec::new();
            }
            Extension::try_find().map_or_else(Vec::new, |extension| Column::all(&extension, None))
        })
    });
    let mut has_worked = false;
    for column in &columns {
        if process::is_stopping() {
            return false;
        }
        let name = (column.table.oid.to_u32(), column.definition.queue.clone());
        let memory = memories.entry(name).or_insert_with(|| Memory {
            pace: Pace::new(),
            errors: 0,
            rests_until: None,
        });
        if memory.rests_until.is_some_and(|until| Instant::now() < until) {
            continue;
        }
        has_worked |= one_batch(column, memory);
    }
    memories.retain(|name, _| {
        columns
            .iter()
            .any(|column| (column.table.oid.to_u32(), &column.definition.queue) == (name.0, &name.1))
    });
    has_worked
}

/// One transaction of one column; returns whether it did something.
fn one_batch(column: &Column, memory: &mut Memory) -> bool {
    let subject = Subject { relation: column.table.oid, queue: column.definition.queue.clone() };
    let result = process::transaction(&format!("embedding {}", column.title()), || {
        let result =
            subtransaction::caught_with_interrupts(|| step(&subject, &mut memory.pace, None, &mut |_| ()));
        let error = match result {
            Ok(Ok(step)) => return Some(step),
            Ok(Err(report)) | Err(report) => report,
        };
        // Somebody in the way is no error of the column.
        if !error.is_interrupt() && !is_conflict(&error) && !process::is_stopping() {
            note_error(column, &error);
        }
        None
    });
    match result {
        None => {
            // The next attempt begins at the start, with one row's worth of patience less.
            memory.errors = (memory.errors + 1).min(16);
            let rest = REST.saturating_mul(1 << (memory.errors - 1)).min(LONGEST_REST);
            memory.rests_until = Some(Instant::now() + rest);
            memory.pace = Pace::new();
            false
        }
        Some(step) => {
            memory.errors = 0;
            memory.rests_until = None;
            match step {
                Step::Batch(done) => done.resolved > 0,
                Step::More => true,
                Step::Gone => false,
                Step::Empty if memory.pace.is_at_start() => {
                    process::transaction("emptying a queue", || shrink(&subject));
                    false
                }
                // Once more from the queue's start, unless all that is left is held by others.
                Step::Empty => memory.pace.restart(),
            }
        }
    }
}
