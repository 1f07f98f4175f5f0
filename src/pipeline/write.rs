//! The second half of a batch: embeddings and failures are written, and claims are given back or resolved. No model runs.

use super::batch::{
    Batch, Ready, Row, Version, concerns_all, is_conflict, may_pass, places, stop_if_cancelled,
};
use super::enqueue::writing_embeddings;
use super::query::{array, literal, quoted};
use crate::error::{Report, pipeline as error};
use crate::server::spi;
use crate::server::subtransaction::caught;
use crate::types::datum::NewVectorArray;
use std::collections::{HashMap, HashSet};

/// Rows that one statement writes, and that an error of one of them undoes first.
const TOGETHER: usize = 256;
/// Attempts that a failure gets which may pass.
const ATTEMPTS: i64 = 8;

/// What became of a row that was to be written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Written,
    /// A trigger of the user left it out.
    Suppressed,
}

impl Batch<'_> {
    /// Writes what is ready. Rows that others change or hold stay in the queue.
    ///
    /// # Errors
    /// What keeps all rows from being written.
    pub fn write(&mut self) -> Result<(), Report> {
        let mut ready = std::mem::take(&mut self.ready);
        self.look_again(&mut ready);
        // A row that waits more than once is written once.
        let mut first = HashSet::new();
        let (rows, copies): (Vec<Ready>, Vec<Ready>) = ready
            .into_iter()
            .partition(|ready| ready.row.as_ref().is_none_or(|row| first.insert(row.version.clone())));
        let mut done = HashSet::new();
        for group in rows.chunks(TOGETHER) {
            self.write_group(group, &mut done)?;
        }
        let is_done = |ready: &&Ready| ready.row.as_ref().is_some_and(|row| done.contains(&row.version));
        let copies: Vec<&str> = copies.iter().filter(is_done).map(|ready| ready.claim.as_str()).collect();
        self.resolve(&copies);
        Ok(())
    }

    /// Finds the rows that were changed while others were embedded. Where the source is the same, the embedding is that of
    /// the new version; others are left in the queue, where the change has put them once more.
    fn look_again(&mut self, ready: &mut Vec<Ready>) {
        let claims: Vec<String> =
            ready.iter().filter(|ready| ready.row.is_some()).map(|ready| ready.claim.clone()).collect();
        if claims.is_empty() {
            return;
        }
        let now = self.versions(&claims);
        let is_changed = |ready: &Ready| {
            ready
                .row
                .as_ref()
                .is_some_and(|row| now.get(&ready.claim).is_none_or(|(version, _)| *version != row.version))
        };
        let changed: Vec<String> =
            ready.iter().filter(|ready| is_changed(ready)).map(|ready| ready.claim.clone()).collect();
        if changed.is_empty() {
            return;
        }
        let mut now = match caught(|| self.sources(&changed)) {
            Ok(now) => now,
            // One of them cannot be evaluated any more: the next batch finds out which.
            Err(report) => {
                stop_if_cancelled(&report);
                HashMap::new()
            }
        };
        let changed: HashSet<String> = changed.into_iter().collect();
        ready.retain_mut(|ready| {
            let Some(row) = ready.row.as_mut().filter(|_| changed.contains(&ready.claim)) else {
                return true;
            };
            let Some((version, is_empty, source)) = now.remove(&ready.claim) else { return false };
            let is_same = row.answer.is_ok() && row.source == source;
            (row.version, row.is_empty) = (version, is_empty);
            is_same
        });
    }

    /// Writes some rows; an error that one of them causes is its own.
    fn write_group(&mut self, group: &[Ready], done: &mut HashSet<Version>) -> Result<(), Report> {
        let before = self.done;
        let report = match caught(|| self.put(group)) {
            Ok(Ok(versions)) => {
                done.extend(versions);
                return Ok(());
            }
            Ok(Err(report)) => return Err(report),
            Err(report) => report,
        };
        self.done = before;
        stop_if_cancelled(&report);
        if let [ready] = group {
            if concerns_all(&report) {
                return Err(report);
            }
            if !is_conflict(&report) {
                self.refused(ready, &report, done);
            }
            return Ok(());
        }
        let (first, second) = group.split_at(group.len() / 2);
        self.write_group(first, done)?;
        self.write_group(second, done)
    }

    /// Writes some rows, all or none; answers the versions that are done with.
    fn put(&mut self, group: &[Ready]) -> Result<Vec<Version>, Report> {
        let (mut writes, mut resolved, mut failures, mut done) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for ready in group {
            let claim = ready.claim.as_str();
            let Some(row) = &ready.row else {
                resolved.push(claim);
                continue;
            };
            match &row.answer {
                Ok(None) if row.is_empty => {
                    resolved.push(claim);
                    done.push(row.version.clone());
                }
                Err(report) if may_pass(report) => {
                    failures.push((claim, report, false));
                    done.push(row.version.clone());
                }
                Ok(_) | Err(_) => writes.push((claim, row)),
            }
        }
        let rows: Vec<&Row> = writes.iter().map(|write| write.1).collect();
        let fates = self.update(&rows)?;
        let suppressed = error::suppressed(&self.column.table.qualified());
        for (claim, row) in writes {
            let Some(fate) = fates.get(&(row.version.place.as_str(), row.version.relation.as_str())) else {
                continue;
            };
            done.push(row.version.clone());
            match (&row.answer, fate) {
                (Err(report), _) => failures.push((claim, report, true)),
                (Ok(_), Fate::Suppressed) => failures.push((claim, &suppressed, true)),
                (Ok(_), Fate::Written) => {
                    resolved.push(claim);
                    self.done.embedded += 1;
                    self.done.replaced += u64::from(!row.is_empty);
                }
            }
        }
        self.forget_failures(&resolved);
        for (claim, report, is_final) in failures {
            self.note_failure(claim, report, is_final);
            resolved.push(claim);
        }
        self.resolve(&resolved);
        Ok(done)
    }

    /// A single row whose update raised an error.
    fn refused(&mut self, ready: &Ready, report: &Report, done: &mut HashSet<Version>) {
        let Some(row) = &ready.row else { return };
        let report = row.answer.as_ref().err().unwrap_or(report);
        let is_final = !may_pass(report);
        if is_final {
            // An embedding of what the row was before would be wrong. Where even NULL is refused, it stays.
            let empty =
                Row { version: row.version.clone(), is_empty: row.is_empty, source: None, answer: Ok(None) };
            match caught(|| self.update(&[&empty]).map(|fates| fates.is_empty())) {
                // Changed or held by another session.
                Ok(Ok(true)) => return,
                Ok(_) => {}
                Err(refused) => stop_if_cancelled(&refused),
            }
        }
        self.note_failure(&ready.claim, report, is_final);
        self.resolve(&[&ready.claim]);
        done.insert(row.version.clone());
    }

    /// Writes embeddings to rows that are as they were read, and not locked; returns what became of these, by place and
    /// partition.
    fn update<'r>(&self, rows: &[&'r Row]) -> Result<HashMap<(&'r str, &'r str), Fate>, Report> {
        if rows.is_empty() {
            return Ok(HashMap::new());
        }
        let embedding = |row: &'r Row| row.answer.as_ref().ok().and_then(Option::as_ref);
        let dim = rows.iter().find_map(|row| embedding(row)).map_or(1, |embedding| embedding.len());
        let nulls = rows.iter().filter(|row| embedding(row).is_none()).count();
        let mut embeddings = NewVectorArray::new(rows.len(), nulls, dim)?;
        for row in rows {
            if embedding(row).is_some_and(|embedding| embedding.len() != dim) {
                unreachable!("a model has one number of dimensions");
            }
            embeddings.push(embedding(row).map(|embedding| &**embedding));
        }
        let target = quoted(self.column.target());
        let table = self.column.table.from();
        // The lock comes first, so that a row which another transaction holds is left for later instead of waited for.
        let sql = format!(
            "WITH v AS MATERIALIZED (SELECT * FROM unnest({places}, {relations}, {versions}, $1) WITH ORDINALITY
                 AS v(place, relation, version, embedding, number)),
             l AS MATERIALIZED (SELECT p.ctid AS place, p.tableoid AS relation FROM v, {table} AS p
                 WHERE p.ctid = v.place AND p.tableoid = v.relation AND p.xmin = v.version FOR NO KEY UPDATE OF p SKIP LOCKED),
             u AS (UPDATE {table} AS p SET {target} = v.embedding FROM l, v
                 WHERE p.ctid = l.place AND p.tableoid = l.relation AND v.place = l.place AND v.relation = l.relation
                 RETURNING v.number)
             SELECT v.number, v.number IN (SELECT u.number FROM u) FROM l JOIN v USING (place, relation)",
            places = places(rows.iter().map(|row| row.version.place.as_str())),
            relations = array(rows.iter().map(|row| row.version.relation.as_str()), "oid"),
            versions = array(rows.iter().map(|row| row.version.writer.as_str()), "xid"),
        );
        let argument = (self.extension.vectors, Some(embeddings.into_raw(self.extension.vector)));
        let fates = writing_embeddings(self.column.table.oid, self.column.target(), || {
            spi::rows(&sql, &[argument], |row| (row.integer(1), row.is_true(2)))
        });
        let fate = |(number, is_written): (i64, bool)| {
            let row = rows[usize::try_from(number - 1).expect("numbers count from 1")];
            let fate = if is_written { Fate::Written } else { Fate::Suppressed };
            ((row.version.place.as_str(), row.version.relation.as_str()), fate)
        };
        Ok(fates.into_iter().map(fate).collect())
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
    fn forget_failures(&self, claims: &[&str]) {
        let log = self.column.log();
        let has_any = format!("SELECT FROM {log} WHERE kind IN ('failed', 'retry') LIMIT 1");
        if claims.is_empty() || spi::first(&has_any, &[], |_| ()).is_none() {
            return;
        }
        let sql = format!(
            "DELETE FROM {log} AS l USING {queue} AS q WHERE q.ctid = ANY ({places}) AND l.kind IN ('failed', 'retry') AND {equal}",
            queue = self.column.queue(),
            places = places(claims.iter().copied()),
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
}
