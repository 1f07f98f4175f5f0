//! `imgvec_work`: works queues until they are empty, batch by batch, each a transaction of its own.

use super::backfill;
use super::batch::{self, Done, Pace, stop_if_cancelled};
use super::column::{Column, Extension};
use super::declare::{chosen, owned};
use super::query::literal;
use super::tables;
use crate::error::{OrRaise, Report, pipeline as error};
use crate::server::{is_standby, latch, security, spi, subtransaction};
use crate::types::datum::Text;
use pgrx::prelude::*;
use std::time::{Duration, Instant};

/// How often percents are told.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// Waiting rows that are counted to tell percents.
const MOST_COUNTED: i64 = 1_000_000;
/// A queue that is empty and larger than this is truncated.
const WORTH_TRUNCATING: i64 = 1 << 20;
/// How long to wait for rows that other transactions hold.
const WAIT: Duration = Duration::from_millis(200);

#[pg_extern]
fn imgvec_work(
    relation: Option<pg_sys::Oid>,
    target: Option<Text<'_>>,
    max_seconds: Option<f64>,
    call: pg_sys::FunctionCallInfo,
) {
    if is_standby() {
        error::in_recovery("imgvec_work").raise();
    }
    // SAFETY: the call's own data.
    let Some(procedure) = (unsafe { spi::Procedure::begin(call) }) else {
        error::in_transaction("imgvec_work").raise()
    };
    let target = target.map(|target| target.as_str().to_owned());
    // Outside of the range of times is without end.
    let limit = max_seconds.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX));
    let end = limit.and_then(|limit| Instant::now().checked_add(limit));
    procedure.commit();
    let wanted = security::pinned(|| {
        let extension = Extension::find();
        match relation {
            Some(relation) => {
                let table = owned(relation)?;
                chosen(&extension, &table, target.as_deref())
            }
            None => {
                let mut columns = Column::all(&extension, None);
                columns.retain(|column| security::owns(column.table.oid));
                Ok(columns)
            }
        }
    });
    for column in wanted.or_raise() {
        work(&procedure, &column, end);
    }
    procedure.end();
}

/// One column of one table, by its table's oid and its queue's name, which no other column has.
pub struct Subject {
    pub relation: pg_sys::Oid,
    pub queue: (String, String),
}

impl Subject {
    /// The column as it is now; none if it is gone.
    fn load(&self) -> Option<(Extension, Column)> {
        security::pinned(|| {
            let extension = Extension::find();
            let column = Column::all(&extension, Some(self.relation))
                .into_iter()
                .find(|column| column.definition.queue == self.queue)?;
            Some((extension, column))
        })
    }
}

/// What a step of the work tells about going on.
pub enum Step {
    Batch(Done),
    /// The queue may have rows again.
    More,
    Empty,
    /// The column is not maintained any more.
    Gone,
}

/// Works one queue until it is empty or the time is up.
pub fn work(procedure: &spi::Procedure, column: &Column, end: Option<Instant>) {
    let subject = Subject { relation: column.table.oid, queue: column.definition.queue.clone() };
    let mut pace = Pace::new(column.definition.kind);
    let mut told = Told::new(column.title());
    loop {
        pgrx::check_for_interrupts!();
        let mut failure = None;
        let step = spi::with_snapshot(|| match step(&subject, &mut pace, &mut |column| told.look(column)) {
            Ok(step) => step,
            Err(report) => {
                failure = Some(report);
                Step::Empty
            }
        });
        if let Some(report) = failure {
            spi::with_snapshot(|| {
                if let Some((_, column)) = subject.load() {
                    note_error(&column, &report);
                }
            });
            procedure.commit();
            report.raise();
        }
        procedure.commit();
        match step {
            Step::Batch(done) => told.add(done),
            Step::More => {}
            Step::Gone => return,
            Step::Empty => {
                if !pace.is_at_start() {
                    if !pace.restart() {
                        // A whole pass, and nothing could be taken: others hold the rows.
                        latch::wait(WAIT);
                    }
                    continue;
                }
                break;
            }
        }
        if end.is_some_and(|end| Instant::now() >= end) {
            told.is_over = true;
            break;
        }
    }
    spi::with_snapshot(|| shrink(&subject));
    procedure.commit();
    told.finish();
}

/// One transaction's worth of work.
pub fn step(subject: &Subject, pace: &mut Pace, look: &mut dyn FnMut(&Column)) -> Result<Step, Report> {
    let Some((extension, column)) = subject.load() else { return Ok(Step::Gone) };
    if !security::owns(column.table.oid) {
        return Err(error::not_the_owner(&column.table.qualified(), &column.table.owner_name));
    }
    if column.is_stale() && refresh(&extension, &column) {
        return Ok(Step::More);
    }
    let result = security::as_owner(column.table.owner, || {
        // The table before its queue, as everybody does who locks both.
        spi::run(&format!("LOCK TABLE {} IN ROW EXCLUSIVE MODE", column.table.from()), &[]);
        let key = column.key()?;
        let done = batch::run(&extension, &column, &key, pace)?;
        if done.claimed > 0 {
            look(&column);
            return Ok(Step::Batch(done));
        }
        if !pace.is_at_start() {
            return Ok(Step::Empty);
        }
        let is_more = queue_retries(&column, &key) | backfill::advance(&column, &key);
        Ok(if is_more { Step::More } else { Step::Empty })
    });
    match result {
        Ok(step) => {
            security::pinned(|| tables::tie(&extension, &column));
            Ok(step)
        }
        Err(report) => Err(report),
    }
}

/// Writes the declaration anew where it has old names, if nobody writes to the table at the moment: a dump has names only.
/// Tells whether it was written.
fn refresh(extension: &Extension, column: &Column) -> bool {
    let written = subtransaction::caught(|| {
        security::pinned(|| {
            spi::run("SET LOCAL lock_timeout = '50ms'", &[]);
            spi::run(
                &format!("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE NOWAIT", column.table.qualified()),
                &[],
            );
            // What was read before the lock may be old.
            let columns = Column::all(extension, Some(column.table.oid));
            let column = columns.iter().find(|it| it.definition.queue == column.definition.queue)?;
            let definition = column.refreshed().ok()??;
            tables::refresh(extension, column, definition);
            Some(())
        })
    });
    match written {
        Ok(written) => written.is_some(),
        // Somebody is in the way, or the source has an error, which the batch finds too. What is stored will do for now.
        Err(report) => {
            stop_if_cancelled(&report);
            false
        }
    }
}

/// Queues the rows whose time for another attempt has come.
fn queue_retries(column: &Column, key: &super::column::Key) -> bool {
    let (log, queue) = (column.log(), column.queue());
    let sql = format!(
        "WITH due AS MATERIALIZED (SELECT ctid AS place FROM {log} WHERE kind = 'retry' AND not_before <= clock_timestamp()
             LIMIT 10000 FOR UPDATE SKIP LOCKED),
         taken AS (UPDATE {log} AS l SET not_before = 'infinity' FROM due WHERE l.ctid = due.place RETURNING {stored_l})
         INSERT INTO {queue} SELECT t.*, now() FROM taken AS t",
        stored_l = key.stored("l."),
    );
    spi::run(&sql, &[]) > 0
}

/// Writes down why nothing of the column can be embedded.
pub fn note_error(column: &Column, report: &Report) {
    let log = column.log();
    let noted = subtransaction::caught(|| {
        security::as_owner(column.table.owner, || {
            spi::run(&format!("DELETE FROM {log} WHERE kind = 'error'"), &[]);
            let sql = format!(
                "INSERT INTO {log} (kind, at, sqlstate, message) VALUES ('error', clock_timestamp(), {}, {})",
                literal(&report.sqlstate()),
                literal(&report.summary())
            );
            spi::run(&sql, &[]);
        });
    });
    // What keeps it from being noted is most likely the same, which is told anyway.
    drop(noted);
}

/// Gives the disk space of an empty queue back, if nobody uses it at the moment.
pub fn shrink(subject: &Subject) {
    let Some((_, column)) = subject.load() else { return };
    let queue = column.queue();
    let shrunk = subtransaction::caught(|| {
        security::as_owner(column.table.owner, || {
            let size = format!("SELECT pg_relation_size({}::regclass)", literal(&queue));
            let is_large = spi::first(&size, &[], |row| row.integer(1)).unwrap_or(0) > WORTH_TRUNCATING;
            let has_rows = || spi::first(&format!("SELECT FROM {queue} LIMIT 1"), &[], |_| ()).is_some();
            if !is_large || has_rows() {
                return;
            }
            spi::run(&format!("LOCK TABLE {queue} IN ACCESS EXCLUSIVE MODE NOWAIT"), &[]);
            // By a snapshot that was taken with the lock.
            if !has_rows() {
                spi::run(&format!("TRUNCATE {queue}"), &[]);
            }
        });
    });
    // Somebody inserts: it is not empty for long.
    drop(shrunk);
}

/// What the caller is told.
struct Told {
    title: String,
    done: Done,
    begin: Instant,
    last: Instant,
    waiting: Option<i64>,
    /// Whether the time was up before the queue was empty.
    is_over: bool,
}

impl Told {
    fn new(title: String) -> Self {
        Self {
            title,
            done: Done::default(),
            begin: Instant::now(),
            last: Instant::now(),
            waiting: None,
            is_over: false,
        }
    }

    /// Counts what waits, if it is time to tell.
    fn look(&mut self, column: &Column) {
        if self.last.elapsed() < TELL_EVERY {
            return;
        }
        self.last = Instant::now();
        let sql = format!(
            "SELECT count(*) + (SELECT coalesce(sum(greatest(c.reltuples, 0)::bigint - l.rows), 0)
                 FROM {log} AS l, pg_class AS c WHERE l.kind = 'backfill' AND c.oid = {oid})
             FROM (SELECT FROM {queue} LIMIT {MOST_COUNTED}) AS waiting",
            log = column.log(),
            queue = column.queue(),
            oid = column.table.oid.to_u32(),
        );
        self.waiting = spi::first(&sql, &[], |row| row.integer(1).max(0));
    }

    fn add(&mut self, done: Done) {
        self.done.embedded += done.embedded;
        self.done.failed += done.failed;
        self.done.later += done.later;
        self.done.resolved += done.resolved;
        if let Some(waiting) = self.waiting.take() {
            let resolved = self.done.resolved as f64;
            let percent = 100.0 * resolved / (resolved + waiting as f64).max(1.0);
            let rate = self.done.embedded as f64 / self.begin.elapsed().as_secs_f64();
            self.tell(&format!("{percent:.0} %"), &format!("{rate:.1} rows a second"));
        }
    }

    fn tell(&self, state: &str, more: &str) {
        let Done { embedded, failed, later, .. } = self.done;
        let mut text = format!("{}: {state}, {embedded} embedded, {failed} failed", self.title);
        if later > 0 {
            text.push_str(&format!(", {later} to be tried again"));
        }
        if !more.is_empty() {
            text.push_str(&format!(", {more}"));
        }
        Report::new(crate::error::Code::ERRCODE_SUCCESSFUL_COMPLETION, text).notice();
    }

    fn finish(&self) {
        if self.done.resolved > 0 {
            self.tell(if self.is_over { "time is up" } else { "100 %" }, "");
        }
    }
}
