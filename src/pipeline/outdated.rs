//! Rows that were embedded by earlier files of a model: a package that changes under its name makes other embeddings.
//!
//! The log has a line with the digest of the files that were used last. Vectors do not say what made them, so what the line
//! counts is an upper bound: it falls when such a row is embedded again, not when it is deleted.

use super::column::Column;
use super::query::{literal, quoted};
use crate::embed;
use crate::server::spi;

/// Rows that are counted to have the number; of a larger table, the statistics have it.
pub const MOST_COUNTED: i64 = 1_000_000;

/// What a session remembers of a column between batches.
#[derive(Default)]
pub struct Noted {
    /// The digest that the log has, where nothing is outdated.
    digest: Option<String>,
    /// Rows that were embedded again and are not taken off yet.
    replaced: u64,
}

/// Writes down which files the rows of a batch were embedded by; `replaced` of them had an embedding before.
pub fn note(column: &Column, noted: &mut Noted, rows_of_batch: u64, replaced: u64) {
    noted.replaced += replaced;
    let Some(digest) = embed::digest_in_use(&column.definition.model) else { return };
    if noted.digest.as_ref() == Some(&digest) {
        noted.replaced = 0;
        return;
    }
    let log = column.log();
    let known = format!("SELECT message, rows, ctid::text FROM {log} WHERE kind = 'model' LIMIT 1");
    let Some((known, rows, place)) =
        spi::first(&known, &[], |row| (row.string(1), row.integer(2), row.string(3)))
    else {
        let sql = format!(
            "INSERT INTO {log} (kind, at, message, rows) VALUES ('model', clock_timestamp(), {}, 0)",
            literal(&digest)
        );
        spi::run(&sql, &[]);
        return;
    };
    let replaced = i64::try_from(noted.replaced).unwrap_or(i64::MAX);
    let left = if known == digest {
        if rows == 0 {
            *noted = Noted { digest: Some(digest), replaced: 0 };
            return;
        }
        rows.saturating_sub(replaced)
    } else {
        embedded(column).saturating_sub(i64::try_from(rows_of_batch).unwrap_or(i64::MAX))
    };
    // Another worker may write the line at the moment: then the next batch does.
    let sql = format!(
        "WITH line AS MATERIALIZED (SELECT ctid AS place FROM {log} WHERE ctid = '{place}'::tid AND kind = 'model' FOR UPDATE SKIP LOCKED)
         UPDATE {log} AS l SET message = {}, rows = {} FROM line WHERE l.ctid = line.place",
        literal(&digest),
        left.max(0)
    );
    if spi::run(&sql, &[]) > 0 {
        noted.replaced = 0;
    }
}

/// Rows that have an embedding, up to what is counted exactly.
fn embedded(column: &Column) -> i64 {
    let target = quoted(column.target());
    let from = column.table.from();
    let counted = format!(
        "SELECT count(*) FROM (SELECT FROM {from} AS p WHERE p.{target} IS NOT NULL LIMIT {MOST_COUNTED}) AS counted"
    );
    let counted = spi::first(&counted, &[], |row| row.integer(1)).unwrap_or(0);
    if counted < MOST_COUNTED {
        return counted;
    }
    let size = "SELECT greatest(0, sum(reltuples))::bigint FROM pg_class WHERE oid IN (
        SELECT relid FROM pg_partition_tree($1) WHERE isleaf UNION ALL SELECT $1)";
    spi::first(size, &[spi::oid(column.table.oid)], |row| row.integer(1)).unwrap_or(0).max(counted)
}

/// Rows of earlier files, at most.
pub fn count(column: &Column) -> i64 {
    let known = format!("SELECT message, rows FROM {} WHERE kind = 'model' LIMIT 1", column.log());
    let Some((known, rows)) = spi::first(&known, &[], |row| (row.string(1), row.integer(2))) else {
        return 0;
    };
    match embed::digest_on_disk(&column.definition.model) {
        Some(digest) if digest != known => embedded(column),
        // A model that is not there tells nothing.
        _ => rows,
    }
}
