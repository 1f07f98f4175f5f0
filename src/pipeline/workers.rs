//! Starting and stopping background workers.

use crate::error::{Code, Report, pipeline as error};
use crate::guc;
use crate::server::{is_standby, process, security, spi};
use pgrx::bgworkers::BackgroundWorkerBuilder;
use pgrx::{IntoDatum, pg_sys, prelude::*};
use std::time::{Duration, Instant};

/// What pg_stat_activity calls them.
const KIND: &str = "imgvec worker";
/// After a crash, the server starts them again.
const RESTART: Duration = Duration::from_secs(5);
/// How long to wait for workers to end, which takes them less than a second.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most workers that one call starts.
const MOST: i32 = 64;

/// A worker of this library that begins in one of its functions.
pub fn builder(kind: &str, function: &str) -> BackgroundWorkerBuilder {
    BackgroundWorkerBuilder::new(kind)
        .set_type(kind)
        .set_library("$libdir/imgvec")
        .set_function(function)
        .enable_spi_access()
}

fn worker() -> BackgroundWorkerBuilder {
    builder(KIND, "imgvec_worker_main").set_restart_time(Some(RESTART))
}

/// Registers the workers of the settings, while the postmaster preloads the library.
pub fn register() {
    // SAFETY: a plain read of the server's state.
    if !unsafe { pg_sys::process_shared_preload_libraries_in_progress } {
        return;
    }
    for database in guc::worker_databases() {
        // A longer name is none that a database could have.
        if database.len() < pg_sys::NAMEDATALEN as usize {
            (0..guc::workers()).for_each(|_| worker().set_extra(&database).load());
        }
    }
}

/// Who may decide what the server's processes do in this database.
fn check_rights() {
    let sql = "SELECT pg_has_role(datdba, 'USAGE') FROM pg_database WHERE datname = current_database()";
    let may = security::pinned(|| spi::first(sql, &[], |row| row.is_true(1))).unwrap_or(false);
    if !may {
        Report::new(Code::ERRCODE_INSUFFICIENT_PRIVILEGE, "permission denied to start or stop workers")
            .detail("Workers use processor time for the whole database.")
            .hint("Let the database's owner or a superuser do it, or call imgvec_work for your own tables.")
            .raise();
    }
}

/// Whether a worker has come as far as its database.
fn is_connected(pid: i32) -> bool {
    let sql = "SELECT pg_stat_clear_snapshot()::text IS NULL, (SELECT count(datid) FROM pg_stat_get_activity($1::integer))";
    security::pinned(|| spi::first(sql, &[spi::integer(i64::from(pid))], |row| row.integer(2))) == Some(1)
}

#[pg_extern]
fn imgvec_start_workers(count: i32) -> i32 {
    check_rights();
    if is_standby() {
        error::in_recovery("imgvec_start_workers").raise();
    }
    if !(1..=MOST).contains(&count) {
        Report::new(Code::ERRCODE_INVALID_PARAMETER_VALUE, format!("cannot start {count} workers"))
            .detail(format!("The number may be 1 to {MOST}."))
            .hint("One worker per core is enough. imgvec_stop_workers ends workers that run.")
            .raise();
    }
    // SAFETY: plain reads of the session's state.
    let (database, process) = unsafe { (pg_sys::MyDatabaseId.to_u32(), pg_sys::MyProcPid) };
    let mut started = Vec::new();
    for _ in 0..count {
        let worker =
            worker().set_argument(i64::from(database).into_datum()).set_notify_pid(process).load_dynamic();
        let Ok(worker) = worker else { break };
        let Ok(pid) = worker.wait_for_startup() else { break };
        started.push(pid);
    }
    // A process that is not connected yet is not one that imgvec_stop_workers finds.
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE
        && !started.iter().all(|&pid| is_connected(pid) || !process::is_alive(pid))
    {
        process::wait(Duration::from_millis(20));
    }
    let started = i32::try_from(started.len()).expect("a few");
    if started == 0 {
        Report::new(Code::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED, "could not start a worker")
            .detail("The server has no free background worker.")
            .hint("Raise max_worker_processes, or call imgvec_work in a session or by pg_cron.")
            .raise();
    }
    if started < count {
        Report::new(
            Code::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
            format!("started {started} of {count} workers"),
        )
        .detail("The server has no more free background workers.")
        .hint("Raise max_worker_processes.")
        .warn();
    }
    started
}

#[pg_extern]
fn imgvec_stop_workers() -> i32 {
    check_rights();
    let sql = "SELECT pid FROM pg_stat_get_activity(NULL) AS a JOIN pg_database AS d ON d.oid = a.datid
        WHERE a.backend_type = $1 AND d.datname = current_database()";
    let processes = security::pinned(|| {
        spi::rows(sql, &[spi::text(KIND)], |row| i32::try_from(row.integer(1)).unwrap_or(0))
    });
    let processes: Vec<i32> = processes.into_iter().filter(|&pid| pid > 0).collect();
    processes.iter().for_each(|&pid| process::terminate(pid));
    // What they had claimed waits again when they are gone.
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE && processes.iter().any(|&pid| process::is_alive(pid)) {
        process::wait(Duration::from_millis(20));
    }
    i32::try_from(processes.len()).unwrap_or(i32::MAX)
}
