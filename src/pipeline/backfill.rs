//! Rows that were there before: queued a few thousand at a time in the order of their key, as the queue runs dry.
//!
//! The place is a row of the log. Rows that come or change meanwhile are queued by the triggers, also those that change
//! their key to one that was passed already.

use super::column::{Column, Key};
use super::query::quoted;
use crate::server::spi;

/// Rows that are queued at a time: below a second of the fastest model, so that new rows do not wait behind millions.
const CHUNK: i64 = 10_000;

/// Queues the next rows; returns whether there may be more to embed now. Waits for another session that does the same.
pub fn advance(column: &Column, key: &Key) -> bool {
    let (log, queue, table) = (column.log(), column.queue(), column.table.from());
    let place = format!(
        "SELECT ctid::text, message, k1 IS NULL FROM {log} WHERE kind = 'backfill' LIMIT 1 FOR UPDATE"
    );
    let Some((place, mode, is_start)) =
        spi::first(&place, &[], |row| (row.string(1), row.string(2), row.is_true(3)))
    else {
        return false;
    };
    let mut conditions = wanted(column, key, &mode);
    if !is_start {
        conditions.push(key.behind("b"));
    }
    let condition = conditions.join(" AND ");
    let sql = format!(
        "WITH b AS MATERIALIZED (SELECT * FROM {log} WHERE ctid = '{place}'::tid),
         found AS MATERIALIZED (SELECT {named} FROM {table} AS p WHERE {condition} ORDER BY {order} LIMIT {CHUNK}),
         queued AS (INSERT INTO {queue} SELECT f.*, now() FROM found AS f),
         last AS (SELECT {named_f} FROM found AS p ORDER BY {downwards} LIMIT 1),
         moved AS (UPDATE {log} AS l SET ({stored}) = (SELECT * FROM last), rows = l.rows + (SELECT count(*) FROM found)
             WHERE l.ctid = '{place}'::tid AND EXISTS (SELECT FROM last))
         SELECT count(*) FROM found",
        named = key.named("p."),
        named_f = key.named("p."),
        order = key.order("p.", false),
        downwards = key.order("p.", true),
        stored = key.stored(""),
    );
    let found = spi::first(&sql, &[], |row| row.integer(1)).unwrap_or(0);
    if found < CHUNK {
        spi::run(&format!("DELETE FROM {log} WHERE kind = 'backfill'"), &[]);
    }
    true
}

/// What rows a backfill embeds, as conditions on a row `p` of the table.
pub fn wanted(column: &Column, key: &Key, mode: &str) -> Vec<String> {
    let mut conditions = Vec::new();
    if mode != "all" {
        conditions.push(format!("p.{} IS NULL", quoted(column.target())));
    }
    // A row that has neither would be queued for nothing. An expression is not evaluated here: it may fail.
    if column.definition.is_column && mode != "all" {
        conditions.push(format!("{} IS NOT NULL", column.source()));
    }
    // It failed already, as a new row.
    let failed = format!(
        "NOT EXISTS (SELECT FROM {} AS l WHERE l.kind IN ('failed', 'retry') AND {})",
        column.log(),
        key.matches("l")
    );
    conditions.push(failed);
    conditions
}
