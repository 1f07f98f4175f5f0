//! The first half of a batch: claimed rows are read and their sources embedded. No row of the table is locked meanwhile.

use super::batch::{Batch, Ready, Row, Version, concerns_all, is_conflict, places, stop_if_cancelled};
use super::definition::Kind;
use super::query::quoted;
use crate::embed::{self, Input};
use crate::error::Report;
use crate::fault;
use crate::server::spi;
use crate::server::subtransaction::caught;
use crate::types::datum::{Bytea, Text};
use pgrx::{FromDatum, pg_sys};
use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long sources are read again. Rows that are not read wait for the next batch.
const LOOK_TIME: Duration = Duration::from_secs(1);

impl Batch<'_> {
    /// Embeds claimed rows, and returns how many, from the first on: at the deadline the rest is left. An error that one of them
    /// causes is its own: the others are embedded without it.
    pub fn embed(&mut self, claims: &[String]) -> Result<usize, Report> {
        // The version first: a failure of a source is that of this version, or of a later one.
        let before = if claims.len() == 1 { self.versions(claims) } else { HashMap::new() };
        let report = match caught(|| self.read(claims)) {
            Ok(Ok(ready)) => {
                let count = ready.len();
                self.ready.extend(ready);
                return Ok(count);
            }
            Ok(Err(report)) => return Err(report),
            Err(report) => report,
        };
        stop_if_cancelled(&report);
        if let [claim] = claims {
            if concerns_all(&report) {
                return Err(report);
            }
            // Where another transaction is in the way, the row stays in the queue.
            if !is_conflict(&report) {
                let row = before.get(claim).map(|(version, is_empty)| Row {
                    version: version.clone(),
                    is_empty: *is_empty,
                    source: None,
                    answer: Err(report),
                });
                self.ready.push(Ready { claim: claim.clone(), row });
            }
            return Ok(1);
        }
        let (first, second) = claims.split_at(claims.len() / 2);
        let count = self.embed(first)?;
        if count < first.len() || self.is_late() {
            return Ok(count);
        }
        Ok(count + self.embed(second)?)
    }

    /// The query for claimed rows and `columns` of their rows in the table. With a limit, rows whose turn has not come by then
    /// are left out, but for the first: each row is computed when the one before is through.
    fn rows_of(&self, claims: &[String], columns: &str, limit: Option<Instant>) -> String {
        let in_time = limit.zip(claims.first()).map_or_else(String::new, |(limit, first)| {
            let left = limit.saturating_duration_since(Instant::now());
            let limit = (SystemTime::now() + left).duration_since(UNIX_EPOCH).unwrap_or_default();
            format!(
                " AND (clock_timestamp() < to_timestamp({:.6}) OR q.ctid = '{first}'::tid)",
                limit.as_secs_f64()
            )
        });
        format!(
            "SELECT q.ctid::text, r.place::text, r.relation::oid::text, r.version::text, r.* FROM {queue} AS q
             LEFT JOIN LATERAL (SELECT p.ctid AS place, p.tableoid AS relation, p.xmin AS version,
                 p.{target} IS NULL AS is_empty{columns} FROM {table} AS p WHERE {matches} LIMIT 1) AS r ON true
             WHERE q.ctid = ANY ({places}){in_time}",
            queue = self.column.queue(),
            target = quoted(self.column.target()),
            table = self.column.table.from(),
            matches = self.key.matches("q"),
            places = places(claims.iter().map(String::as_str)),
        )
    }

    /// The versions that the rows of claims have now, and whether they have no embedding.
    pub fn versions(&self, claims: &[String]) -> HashMap<String, (Version, bool)> {
        let rows = spi::rows(&self.rows_of(claims, "", None), &[], |row| {
            Some((row.string(1), (version(row)?, row.is_true(IS_EMPTY))))
        });
        rows.into_iter().flatten().collect()
    }

    /// Versions and sources of the rows of claims, as they are now; of those that can be read within a second.
    pub fn sources(&self, claims: &[String]) -> HashMap<String, (Version, bool, Option<blake3::Hash>)> {
        let sql = self.rows_of(claims, &self.source(), Some(Instant::now() + LOOK_TIME));
        let rows = spi::rows(&sql, &[], |row| {
            Some((row.string(1), (version(row)?, row.is_true(IS_EMPTY), digest(row))))
        });
        rows.into_iter().flatten().collect()
    }

    /// The source as one more column of `rows_of`.
    fn source(&self) -> String {
        let cast = match self.column.definition.kind {
            Kind::Image => "bytea",
            Kind::Text => "text",
        };
        format!(", {}::{cast} AS source", self.column.source())
    }

    /// Reads claimed rows and embeds their sources.
    fn read(&self, claims: &[String]) -> Result<Vec<Ready>, Report> {
        let definition = &self.column.definition;
        spi::query(&self.rows_of(claims, &self.source(), Some(self.deadline)), &[], |rows| {
            let inputs: Vec<Option<Input<'_>>> =
                rows.iter()
                    .map(|row| {
                        // SAFETY: the query casts the column to that type; rows live as long as the connection.
                        row.datum(SOURCE).and_then(|datum| unsafe {
                            match definition.kind {
                                Kind::Image => Bytea::from_polymorphic_datum(datum, false, pg_sys::BYTEAOID)
                                    .map(Input::Image),
                                Kind::Text => Text::from_polymorphic_datum(datum, false, pg_sys::TEXTOID)
                                    .map(Input::Text),
                            }
                        })
                    })
                    .collect();
            fault::point("embed claimed rows");
            let answers = embed::embed_rows(&definition.model, definition.kind.into(), &inputs)?;
            let ready = rows.iter().zip(answers).map(|(row, answer)| Ready {
                claim: row.string(1),
                row: version(&row).map(|version| Row {
                    version,
                    is_empty: row.is_true(IS_EMPTY),
                    source: digest(&row),
                    answer,
                }),
            });
            Ok(ready.collect())
        })
    }
}

/// Places of columns in the answer of `rows_of`.
const IS_EMPTY: i32 = 8;
const SOURCE: i32 = 9;

/// The version of a claim's row, if it has one.
fn version(row: &spi::Row) -> Option<Version> {
    Some(Version { place: row.text(2)?, relation: row.string(3), writer: row.string(4) })
}

/// What a source is told by: a value out of line by its place, which an update that leaves it alone does not change.
fn digest(row: &spi::Row) -> Option<blake3::Hash> {
    row.stored(SOURCE).map(blake3::hash)
}
