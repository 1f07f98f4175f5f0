//! One batch: rows are claimed, read, embedded and written in one transaction, which ends with the batch.
//!
//! A claim is the lock on a row of the queue. Whatever ends the transaction gives it up, and the row waits as before. The
//! rows of the table are not locked while the model runs: an embedding is written only to the version of the row that was
//! read. Where that has changed, the row is read again.

use super::column::{Column, Extension, Key};
use super::enqueue::writing_embeddings;
use super::outdated::{self, Noted};
use super::query::{array, literal, quoted};
use crate::embed::{self, Embedding, Input};
use crate::error::Report;
use crate::server::spi;
use crate::server::subtransaction::caught;
use crate::types::datum::{Bytea, NewVectorArray, Text};
use pgrx::{FromDatum, pg_sys};
use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::definition::Kind;

/// How long a batch should take: cancelling loses no more, and the oldest transaction is no older.
const BATCH_TIME: Duration = Duration::from_millis(1000);
/// Most rows that one batch claims.
const MOST_CLAIMED: usize = 10_000;
/// How often a row that changes under our hands is read again in the same batch.
const ROUNDS: usize = 3;
/// Attempts that a failure gets which may pass.
const ATTEMPTS: i64 = 8;

/// Rows that one statement reads and one run of the model embeds.
fn together(kind: Kind) -> usize {
    match kind {
        Kind::Image => 32,
        Kind::Text => 256,
    }
}

/// What a session remembers between batches of a column.
pub struct Pace {
    /// The block of the queue where the last batch ended. Dead rows before it are not looked at again.
    block: u32,
    /// Rows to claim next.
    claim: usize,
    /// Whether this pass through the queue, from its start, took anything out of it.
    has_moved: bool,
    noted: Noted,
}

impl Pace {
    pub fn new(kind: Kind) -> Self {
        Self { block: 0, claim: together(kind), has_moved: false, noted: Noted::default() }
    }

    /// Begins another pass through the queue; tells whether the one before took anything out of it.
    pub fn restart(&mut self) -> bool {
        self.block = 0;
        std::mem::take(&mut self.has_moved)
    }

    pub fn is_at_start(&self) -> bool {
        self.block == 0
    }
}

/// What a batch did.
#[derive(Default, Clone, Copy)]
pub struct Done {
    pub claimed: u64,
    /// Rows whose embedding was written, NULL for NULL included.
    pub embedded: u64,
    pub failed: u64,
    /// Rows that are tried again later.
    pub later: u64,
    /// Rows taken out of the queue.
    pub resolved: u64,
    /// Rows whose embedding took the place of another one.
    pub replaced: u64,
}

/// The batch that runs.
struct Batch<'a> {
    extension: &'a Extension,
    column: &'a Column,
    key: &'a Key,
    done: Done,
}

/// A claimed row of the queue, and what was read of its row in the table.
struct Read {
    /// Place in the queue.
    claim: String,
    /// None if there is no such row.
    row: Option<Version>,
    /// Whether it has no embedding.
    is_empty: bool,
}

/// The version of a row that was read.
struct Version {
    place: String,
    /// The partition's oid.
    relation: String,
    /// The transaction that wrote it.
    writer: String,
}

/// What is to be written.
struct Write<'a> {
    row: &'a Read,
    version: &'a Version,
    embedding: Option<Embedding>,
}

/// Claims rows and embeds them. No rows mean that the pass has come to the end of the queue.
///
/// # Errors
/// What keeps all rows from being embedded: the model, the source, a right. Nothing but the claims is undone then.
pub fn run(extension: &Extension, column: &Column, key: &Key, pace: &mut Pace) -> Result<Done, Report> {
    let begin = Instant::now();
    let claims = claim(column, pace);
    let Some(last) = claims.last() else { return Ok(Done::default()) };
    let last_block = block(last);
    let mut batch =
        Batch { extension, column, key, done: Done { claimed: claims.len() as u64, ..Done::default() } };
    let mut processed = 0;
    for chunk in claims.chunks(together(column.definition.kind)) {
        batch.process(chunk, ROUNDS)?;
        processed += chunk.len();
        if begin.elapsed() >= BATCH_TIME {
            break;
        }
    }
    let done = batch.done;
    if done.embedded + done.failed > 0 {
        batch.note(begin.elapsed());
        outdated::note(column, &mut pace.noted, done.embedded, done.replaced);
    }
    // Claims that there was no time for are the next batch's first.
    let share = begin.elapsed().as_secs_f64() / processed as f64;
    let rate = BATCH_TIME.as_secs_f64() / share.max(1e-6);
    // Not more than four times as many as before: rows that were no work say little of those that are.
    pace.claim = (rate as usize).clamp(together(column.definition.kind), MOST_CLAIMED).min(4 * pace.claim);
    pace.block = if processed < claims.len() { block(&claims[processed]) } else { last_block };
    pace.has_moved |= done.resolved > 0;
    // A batch that resolved nothing must not stay where it is.
    if done.resolved == 0 && processed == claims.len() {
        pace.block += 1;
    }
    Ok(done)
}

/// The block number of a place such as `(7,12)`.
fn block(place: &str) -> u32 {
    place.trim_start_matches('(').split(',').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Places in the queue that are ours until the transaction ends.
fn claim(column: &Column, pace: &Pace) -> Vec<String> {
    let sql = format!(
        "SELECT ctid::text FROM {} WHERE ctid >= '({},0)'::tid LIMIT {} FOR UPDATE SKIP LOCKED",
        column.queue(),
        pace.block,
        pace.claim
    );
    spi::rows(&sql, &[], |row| row.string(1))
}

fn places<'a>(claims: impl Iterator<Item = &'a str>) -> String {
    array(claims, "tid")
}

impl Batch<'_> {
    /// Embeds claimed rows. An error that one of them causes is its own: the others are embedded without it.
    fn process(&mut self, claims: &[String], rounds: usize) -> Result<(), Report> {
        let before = self.done;
        let result = caught(|| self.embed(claims));
        match result {
            Ok(Ok(unresolved)) => {
                if unresolved.is_empty() || rounds <= 1 {
                    return Ok(());
                }
                self.process(&unresolved, rounds - 1)
            }
            Ok(Err(report)) => Err(report),
            Err(report) => {
                self.done = before;
                stop_if_cancelled(&report);
                if claims.len() > 1 {
                    let (first, second) = claims.split_at(claims.len() / 2);
                    self.process(first, rounds)?;
                    return self.process(second, rounds);
                }
                if concerns_all(&report) {
                    return Err(report);
                }
                // Another transaction is in the way: the row stays in the queue.
                if is_conflict(&report) {
                    return Ok(());
                }
                self.fail_by_itself(&claims[0], &report);
                Ok(())
            }
        }
    }

    /// Reads, embeds and writes; answers the claims whose rows have changed meanwhile or are locked.
    fn embed(&mut self, claims: &[String]) -> Result<Vec<String>, Report> {
        let (rows, answers) = self.read(claims)?;
        let (mut writes, mut gone, mut failures) = (Vec::new(), Vec::new(), Vec::new());
        let mut seen = HashSet::new();
        let mut copies = Vec::new();
        for (row, answer) in rows.iter().zip(answers) {
            let Some(version) = &row.row else {
                gone.push(row.claim.as_str());
                continue;
            };
            // A row that waits more than once is written once.
            if !seen.insert((&version.place, &version.relation)) {
                copies.push((row, version));
                continue;
            }
            match answer {
                Ok(None) if row.is_empty => gone.push(row.claim.as_str()),
                Ok(embedding) => writes.push(Write { row, version, embedding }),
                Err(report) if may_pass(&report) => failures.push((row, report)),
                Err(report) => {
                    writes.push(Write { row, version, embedding: None });
                    failures.push((row, report));
                }
            }
        }
        let written = self.write(&writes)?;
        let is_written =
            |version: &Version| written.contains(&(version.place.clone(), version.relation.clone()));
        let failed: HashSet<&str> = failures.iter().map(|failure| failure.0.claim.as_str()).collect();
        let mut resolved: Vec<&str> = gone;
        let mut unresolved = Vec::new();
        for Write { row, version, .. } in &writes {
            let claim = row.claim.as_str();
            if !is_written(version) {
                unresolved.push(claim);
            } else {
                resolved.push(claim);
                self.done.embedded += u64::from(!failed.contains(claim));
                self.done.replaced += u64::from(!row.is_empty);
            }
        }
        for (row, version) in copies {
            // The first of them is written, or has none to write.
            let is_done = is_written(version)
                || !writes.iter().any(|write| {
                    write.version.place == version.place && write.version.relation == version.relation
                });
            if is_done { &mut resolved } else { &mut unresolved }.push(row.claim.as_str());
        }
        self.forget_failures(resolved.iter().copied().filter(|claim| !failed.contains(claim)));
        for (row, report) in &failures {
            let claim = row.claim.as_str();
            if may_pass(report) {
                self.note_failure(claim, report, false);
                resolved.push(claim);
            } else if resolved.contains(&claim) {
                self.note_failure(claim, report, true);
            }
        }
        self.resolve(&resolved);
        Ok(unresolved.into_iter().map(str::to_owned).collect())
    }

    /// Reads claimed rows and embeds their sources.
    #[allow(clippy::type_complexity, reason = "one answer for each row")]
    fn read(&self, claims: &[String]) -> Result<(Vec<Read>, Vec<Result<Option<Embedding>, Report>>), Report> {
        let definition = &self.column.definition;
        let sql = format!(
            "SELECT q.ctid::text, r.place::text, r.relation::oid::text, r.version::text, r.is_empty, r.source
             FROM {queue} AS q LEFT JOIN LATERAL (SELECT p.ctid AS place, p.tableoid AS relation, p.xmin AS version,
                 p.{target} IS NULL AS is_empty, {source}{cast} AS source
                 FROM {table} AS p WHERE {matches} LIMIT 1) AS r ON true
             WHERE q.ctid = ANY ({places})",
            queue = self.column.queue(),
            target = quoted(self.column.target()),
            source = self.column.source(),
            cast = if definition.kind == Kind::Text { "::text" } else { "::bytea" },
            table = self.column.table.from(),
            matches = self.key.matches("q"),
            places = places(claims.iter().map(String::as_str)),
        );
        spi::query(&sql, &[], |rows| {
            let (mut read, mut inputs) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
            for row in rows.iter() {
                read.push(Read {
                    claim: row.string(1),
                    row: row.text(2).map(|place| Version {
                        place,
                        relation: row.string(3),
                        writer: row.string(4),
                    }),
                    is_empty: row.is_true(5),
                });
                // SAFETY: the query casts the column to that type; rows live as long as the connection.
                inputs.push(row.datum(6).and_then(|datum| unsafe {
                    match definition.kind {
                        Kind::Image => {
                            Bytea::from_polymorphic_datum(datum, false, pg_sys::BYTEAOID).map(Input::Image)
                        }
                        Kind::Text => {
                            Text::from_polymorphic_datum(datum, false, pg_sys::TEXTOID).map(Input::Text)
                        }
                    }
                }));
            }
            let answers = embed::embed_rows(&definition.model, definition.kind.into(), &inputs)?;
            Ok((read, answers))
        })
    }

    /// Writes embeddings to rows that are as they were read, and not locked; answers places and partitions of those.
    fn write(&self, writes: &[Write<'_>]) -> Result<HashSet<(String, String)>, Report> {
        if writes.is_empty() {
            return Ok(HashSet::new());
        }
        let dim =
            writes.iter().find_map(|write| write.embedding.as_ref()).map_or(1, |embedding| embedding.len());
        let nulls = writes.iter().filter(|write| write.embedding.is_none()).count();
        let mut embeddings = NewVectorArray::new(writes.len(), nulls, dim)?;
        for Write { embedding, .. } in writes {
            if embedding.as_ref().is_some_and(|embedding| embedding.len() != dim) {
                unreachable!("a model has one number of dimensions");
            }
            embeddings.push(embedding.as_deref());
        }
        let target = quoted(self.column.target());
        let table = self.column.table.from();
        // The lock comes first, so that a row which another transaction holds is left for later instead of waited for.
        let sql = format!(
            "WITH v AS MATERIALIZED (SELECT * FROM unnest({places}, {relations}, {versions}, $1)
                 AS v(place, relation, version, embedding)),
             l AS MATERIALIZED (SELECT p.ctid AS place, p.tableoid AS relation FROM v, {table} AS p
                 WHERE p.ctid = v.place AND p.tableoid = v.relation AND p.xmin = v.version FOR NO KEY UPDATE OF p SKIP LOCKED)
             UPDATE {table} AS p SET {target} = v.embedding FROM l, v
             WHERE p.ctid = l.place AND p.tableoid = l.relation AND v.place = l.place AND v.relation = l.relation
             RETURNING v.place::text, v.relation::oid::text",
            places = places(writes.iter().map(|write| write.version.place.as_str())),
            relations = array(writes.iter().map(|write| write.version.relation.as_str()), "oid"),
            versions = array(writes.iter().map(|write| write.version.writer.as_str()), "xid"),
        );
        let argument = (self.extension.vectors, Some(embeddings.into_raw(self.extension.vector)));
        let written =
            writing_embeddings(|| spi::rows(&sql, &[argument], |row| (row.string(1), row.string(2))));
        Ok(written.into_iter().collect())
    }

    /// Takes rows out of the queue.
    fn resolve(&mut self, claims: &[&str]) {
        if claims.is_empty() {
            return;
        }
        let places = places(claims.iter().copied());
        self.done.resolved +=
            spi::run(&format!("DELETE FROM {} WHERE ctid = ANY ({places})", self.column.queue()), &[]);
    }

    /// Rows that are embedded now may have failed before.
    fn forget_failures<'c>(&self, claims: impl Iterator<Item = &'c str>) {
        let claims: Vec<&str> = claims.collect();
        let log = self.column.log();
        let has_any = format!("SELECT FROM {log} WHERE kind IN ('failed', 'retry') LIMIT 1");
        if claims.is_empty() || spi::first(&has_any, &[], |_| ()).is_none() {
            return;
        }
        let sql = format!(
            "DELETE FROM {log} AS l USING {queue} AS q WHERE q.ctid = ANY ({places}) AND l.kind IN ('failed', 'retry') AND {equal}",
            queue = self.column.queue(),
            places = places(claims.into_iter()),
            equal = self.key.equal("l", "q"),
        );
        spi::run(&sql, &[]);
    }

    /// Writes a row's failure down: for good, or until another attempt, which comes later each time.
    fn note_failure(&mut self, claim: &str, report: &Report, is_final: bool) {
        let (log, queue) = (self.column.log(), self.column.queue());
        let stored = self.key.stored("");
        let sql = format!(
            "WITH q AS MATERIALIZED (SELECT * FROM {queue} WHERE ctid = '{claim}'::tid),
             old AS (DELETE FROM {log} AS l USING q WHERE l.kind IN ('failed', 'retry') AND {equal} RETURNING l.attempts),
             new AS MATERIALIZED (SELECT coalesce((SELECT max(attempts) FROM old), 0) + 1 AS attempts)
             INSERT INTO {log} ({stored}, kind, at, sqlstate, message, attempts, not_before)
             SELECT {stored_q}, CASE WHEN {is_final} OR n.attempts >= {ATTEMPTS} THEN 'failed' ELSE 'retry' END,
                 clock_timestamp(), {code}, {message}, n.attempts,
                 CASE WHEN {is_final} OR n.attempts >= {ATTEMPTS} THEN NULL
                 ELSE clock_timestamp() + interval '5 seconds' * power(3, n.attempts - 1) END
             FROM q, new AS n RETURNING kind",
            equal = self.key.equal("l", "q"),
            stored_q = self.key.stored("q."),
            code = literal(&report.sqlstate()),
            message = literal(&report.summary()),
        );
        match spi::first(&sql, &[], |row| row.string(1)).as_deref() {
            Some("failed") => self.done.failed += 1,
            _ => self.done.later += 1,
        }
    }

    /// A single row whose source or whose update raised an error.
    fn fail_by_itself(&mut self, claim: &str, report: &Report) {
        let is_final = !may_pass(report);
        if is_final {
            // An embedding of what the row was before would be wrong. Where even NULL is refused, it stays.
            let sql = format!(
                "UPDATE {table} AS p SET {target} = NULL FROM {queue} AS q WHERE q.ctid = '{claim}'::tid AND {matches}
                 AND p.{target} IS NOT NULL",
                table = self.column.table.from(),
                target = quoted(self.column.target()),
                queue = self.column.queue(),
                matches = self.key.matches("q"),
            );
            if let Err(refused) = caught(|| writing_embeddings(|| spi::run(&sql, &[]))) {
                stop_if_cancelled(&refused);
            }
        }
        self.note_failure(claim, report, is_final);
        self.resolve(&[claim]);
    }

    /// A line of how fast it goes, for `imgvec_progress`; those of a few minutes are kept.
    fn note(&self, elapsed: Duration) {
        let log = self.column.log();
        let done = self.done.embedded + self.done.failed;
        spi::run(
            &format!(
                "INSERT INTO {log} (kind, at, rows, message) VALUES ('batch', clock_timestamp(), {done}, '{:.3}')",
                elapsed.as_secs_f64()
            ),
            &[],
        );
        spi::run(
            &format!(
                "DELETE FROM {log} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {log} WHERE kind = 'batch'
                 AND at < clock_timestamp() - interval '3 minutes' FOR UPDATE SKIP LOCKED))
                 OR kind = 'error' AND ctid = ANY (ARRAY(SELECT ctid FROM {log} WHERE kind = 'error' FOR UPDATE SKIP LOCKED))"
            ),
            &[],
        );
    }
}

/// Cancelling ends the whole work.
fn stop_if_cancelled(report: &Report) {
    pgrx::check_for_interrupts!();
    if report.is_interrupt() {
        Report::new(report.code(), report.summary()).raise();
    }
}

/// A failure that may pass by itself: memory, files, a run of the library, another transaction.
fn may_pass(report: &Report) -> bool {
    matches!(&report.sqlstate()[..2], "53" | "58" | "08" | "38" | "40" | "55")
}

/// An error that all rows would give: of the query, of a right, of the server.
fn concerns_all(report: &Report) -> bool {
    matches!(&report.sqlstate()[..2], "42" | "3F" | "25")
}

fn is_conflict(report: &Report) -> bool {
    matches!(report.sqlstate().as_str(), "40001" | "40P01" | "55P03")
}
