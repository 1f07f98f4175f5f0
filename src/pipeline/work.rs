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
    work_all(&procedure, &wanted.or_raise(), end);
    procedure.end();
}

/// Works these columns; an error of one keeps none of the others waiting, and is raised in the end. Each has its share of the
/// time, so that one with millions of rows leaves some to the others; what these leave over is its own.
fn work_all(procedure: &spi::Procedure, columns: &[Column], end: Option<Instant>) {
    let mut works: Vec<Work> = columns.iter().map(Work::new).collect();
    let mut failed = Vec::new();
    while !works.is_empty() {
        let mut left = Vec::new();
        let mut count = u32::try_from(works.len()).unwrap_or(u32::MAX);
        for mut work in works {
            let share = end.map(|end| {
                let now = Instant::now();
                now + end.saturating_duration_since(now) / count
            });
            count -= 1;
            match work.run(procedure, share) {
                Ok(true) => work.finish(procedure),
                Ok(false) => left.push(work),
                Err(report) if columns.len() == 1 => report.raise(),
                Err(report) => {
                    error::column_failed(&work.told.title, &report).warn();
                    failed.push((work.told.title, report));
                }
            }
        }
        works = left;
        if end.is_some_and(|end| Instant::now() >= end) {
            break;
        }
    }
    works.into_iter().for_each(|work| work.finish(procedure));
    if !failed.is_empty() {
        error::columns_failed(&failed).raise();
    }
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

/// Works one queue until it is empty.
pub fn work(procedure: &spi::Procedure, column: &Column) {
    let mut work = Work::new(column);
    work.run(procedure, None).or_raise();
    work.finish(procedure);
}

/// The work at one queue in one call.
struct Work {
    subject: Subject,
    pace: Pace,
    told: Told,
}

impl Work {
    fn new(column: &Column) -> Self {
        let subject = Subject { relation: column.table.oid, queue: column.definition.queue.clone() };
        Self { subject, pace: Pace::new(), told: Told::new(column.title()) }
    }

    /// Works until the queue is empty or the time is up; returns whether it is empty. The first batch is always begun.
    fn run(&mut self, procedure: &spi::Procedure, end: Option<Instant>) -> Result<bool, Report> {
        let Self { subject, pace, told } = self;
        told.is_over = false;
        loop {
            pgrx::check_for_interrupts!();
            let step = spi::with_snapshot(|| {
                subtransaction::caught(|| step(subject, pace, end, &mut |column| told.look(column)))
                    .and_then(|step| step)
            });
            let step = match step {
                Ok(step) => step,
                Err(report) => {
                    pgrx::check_for_interrupts!();
                    if report.is_interrupt() {
                        report.raise();
                    }
                    spi::with_snapshot(|| {
                        if let Ok(Some((_, column))) = subtransaction::caught(|| subject.load()) {
                            note_error(&column, &report);
                        }
                    });
                    procedure.commit();
                    return Err(report);
                }
            };
            procedure.commit();
            match step {
                Step::Batch(done) => told.add(done),
                Step::More => {}
                Step::Gone => return Ok(true),
                Step::Empty => {
                    if pace.is_at_start() {
                        return Ok(true);
                    }
                    if !pace.restart() {
                        // A whole pass, and nothing could be taken: others hold the rows.
                        latch::wait(WAIT);
                    }
                    continue;
                }
            }
            if end.is_some_and(|end| Instant::now() >= end) {
                told.is_over = true;
                return Ok(false);
            }
        }
    }

    fn finish(self, procedure: &spi::Procedure) {
        spi::with_snapshot(|| shrink(&self.subject));
        procedure.commit();
        self.told.finish();
    }
}

/// One transaction's worth of work.
pub fn step(
    subject: &Subject,
    pace: &mut Pace,
    end: Option<Instant>,
    look: &mut dyn FnMut(&Column),
) -> Result<Step, Report> {
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
        let done = batch::run(&extension, &column, &key, pace, end)?;
        if done.claimed > 0 {
            look(&column);
            return Ok(Step::Batch(done));
        }
        if !pace.is_at_start() {
            return Ok(Step::Empty);
        }
        // Last, whether somebody else has queued rows since the claim: whoever leaves now leaves them to one session.
        let is_more =
            queue_retries(&column, &key) | backfill::advance(&column, &key) || batch::is_waiting(&column);
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

/// Writes the declaration again where it has old names, if nobody writes to the table at the moment: a dump has names only.
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
