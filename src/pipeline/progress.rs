//! The rows behind the views `imgvec_progress` and `imgvec_failures`.

use super::column::{Column, Extension};
use super::query::{literal, quoted};
use super::{backfill, outdated};
use crate::server::returned::Returned;
use crate::server::{security, spi, subtransaction};
use crate::types::datum::NewText;
use pgrx::prelude::*;

/// Rows that are counted one by one; of larger tables and queues, the view says "at least", or what ANALYZE found.
const MOST_COUNTED: i64 = 1_000_000;

type ProgressRows = TableIterator<
    'static,
    (
        name!(relation, pg_sys::Oid),
        name!(target, NewText),
        name!(source, NewText),
        name!(model, NewText),
        name!(rows, Option<i64>),
        name!(embedded, Option<i64>),
        name!(waiting, Option<i64>),
        name!(failed, Option<i64>),
        name!(is_exact, Option<bool>),
        name!(rows_per_second, Option<f64>),
        name!(oldest_waiting, Option<f64>),
        name!(last_error, Option<NewText>),
        name!(outdated, Option<i64>),
    ),
>;

/// Whether the current user may know of a column: of tables that the user may read, all rows of them.
fn is_visible(column: &Column) -> bool {
    let table = column.table.oid;
    security::owns(table) || (security::may_select(table) && !security::is_bound_by_policies(table))
}

/// The columns that the current user may know of.
fn visible() -> Vec<Column> {
    let mut columns = Column::all(&Extension::find(), None);
    columns.retain(is_visible);
    columns
}

#[pg_extern]
fn imgvec_progress_list() -> ProgressRows {
    let rows = security::pinned(|| {
        Column::declared(&Extension::find(), None)
            .iter()
            .filter(|(column, _)| is_visible(column))
            .map(|(column, doubt)| {
                let counts = match doubt {
                    Some(doubt) => Err(doubt.report(column)),
                    None => {
                        subtransaction::caught(|| security::as_owner(column.table.owner, || count(column)))
                    }
                };
                let (counts, error) = match counts {
                    Ok(counts) => (Some(counts), None),
                    // Something that the column needs is gone.
                    Err(report) => (None, Some(report.summary())),
                };
                let error = error.or_else(|| counts.as_ref().and_then(|counts| counts.last_error.clone()));
                let counts = counts.as_ref();
                (
                    column.table.oid,
                    NewText::from_utf8(column.target()),
                    NewText::from_utf8(&column.definition.source),
                    NewText::from_utf8(&column.definition.model),
                    counts.map(|counts| counts.rows),
                    counts.map(|counts| counts.embedded),
                    counts.map(|counts| counts.waiting),
                    counts.map(|counts| counts.failed),
                    counts.map(|counts| counts.is_exact),
                    counts.map(|counts| counts.rate),
                    counts.and_then(|counts| counts.oldest),
                    error.as_deref().map(NewText::from_utf8),
                    counts.map(|counts| counts.outdated),
                )
            })
            .collect::<Vec<_>>()
    });
    TableIterator::new(rows)
}

type OutdatedRows = TableIterator<
    'static,
    (name!(relation, pg_sys::Oid), name!(target, NewText), name!(model, NewText), name!(rows, i64)),
>;

#[pg_extern]
fn imgvec_outdated_list() -> OutdatedRows {
    let rows = security::pinned(|| {
        visible()
            .iter()
            .filter_map(|column| {
                let count = subtransaction::caught(|| {
                    security::as_owner(column.table.owner, || outdated::count(column))
                });
                // What is wrong with a column, imgvec_progress tells.
                let count = count.ok().filter(|&count| count > 0)?;
                let target = NewText::from_utf8(column.target());
                Some((column.table.oid, target, NewText::from_utf8(&column.definition.model), count))
            })
            .collect::<Vec<_>>()
    });
    TableIterator::new(rows)
}

struct Counts {
    rows: i64,
    embedded: i64,
    waiting: i64,
    failed: i64,
    is_exact: bool,
    rate: f64,
    oldest: Option<f64>,
    last_error: Option<String>,
    outdated: i64,
}

fn count(column: &Column) -> Counts {
    let (queue, log, target) = (column.queue(), column.log(), quoted(column.target()));
    let from = column.table.from();
    let size = format!(
        "SELECT greatest(0, sum(reltuples))::bigint FROM pg_class WHERE oid IN (
        SELECT relid FROM pg_partition_tree({oid}::regclass) WHERE isleaf UNION ALL SELECT {oid})",
        oid = column.table.oid.to_u32()
    );
    let estimate = spi::first(&size, &[], |row| row.integer(1)).unwrap_or(0);
    let is_small = estimate <= MOST_COUNTED;
    let number = |sql: &str| spi::first(sql, &[], |row| row.integer(1)).unwrap_or(0);
    let place = format!("SELECT message FROM {log} WHERE kind = 'backfill'");
    let mode = spi::first(&place, &[], |row| row.string(1));
    // After the backfill's place, rows wait that are not in the queue yet.
    let behind = match (&mode, column.key()) {
        (Some(mode), Ok(key)) => {
            let place = format!("(SELECT * FROM {log} WHERE kind = 'backfill') AS b");
            let mut conditions = backfill::wanted(column, &key, mode);
            conditions.push(format!("((SELECT k1 FROM {place}) IS NULL OR {})", key.behind(&place)));
            conditions.push(format!("NOT EXISTS (SELECT FROM {queue} AS q WHERE {})", key.matches("q")));
            conditions.join(" AND ")
        }
        _ => "false".to_owned(),
    };
    let (rows, embedded, unqueued) = if is_small {
        let sql =
            format!("SELECT count(*), count(p.{target}), count(*) FILTER (WHERE {behind}) FROM {from} AS p");
        spi::first(&sql, &[], |row| (row.integer(1), row.integer(2), row.integer(3))).unwrap_or_default()
    } else {
        let nulls = "SELECT null_frac FROM pg_stats WHERE schemaname = $1::name AND tablename = $2::name AND attname = $3::name";
        let names =
            [spi::text(&column.table.schema), spi::text(&column.table.name), spi::text(column.target())];
        let empty =
            spi::first(nulls, &names, |row| row.string(1).parse::<f64>().unwrap_or(1.0)).unwrap_or(1.0);
        let queued = number(&format!("SELECT rows FROM {log} WHERE kind = 'backfill'"));
        let embedded = ((1.0 - empty) * estimate as f64) as i64;
        let unqueued = if mode.is_some() { (estimate - embedded - queued).max(0) } else { 0 };
        (estimate, embedded, unqueued)
    };
    let in_queue = number(&format!("SELECT count(*) FROM (SELECT FROM {queue} LIMIT {MOST_COUNTED}) AS q"));
    let retries =
        number(&format!("SELECT count(*) FROM {log} WHERE kind = 'retry' AND not_before < 'infinity'"));
    let rate = format!(
        "SELECT (coalesce(sum(rows), 0) / greatest(1, least(60, extract(epoch FROM clock_timestamp() - min(at - make_interval(secs => message::float8))))))::text
         FROM {log} WHERE kind = 'batch' AND at > clock_timestamp() - interval '1 minute'"
    );
    let oldest = format!("SELECT extract(epoch FROM queued_at)::text FROM {queue} LIMIT 1");
    let error = format!(
        "SELECT sqlstate || ' ' || message FROM {log} WHERE kind IN ('error', 'failed', 'retry')
        ORDER BY kind <> 'error', at DESC LIMIT 1"
    );
    Counts {
        rows,
        embedded,
        waiting: in_queue + retries + unqueued,
        failed: number(&failures(column, "count(*)")),
        is_exact: is_small && in_queue < MOST_COUNTED,
        rate: spi::first(&rate, &[], |row| row.string(1).parse().unwrap_or(0.0)).unwrap_or(0.0),
        oldest: spi::first(&oldest, &[], |row| row.string(1).parse().ok()).flatten(),
        last_error: spi::first(&error, &[], |row| row.text(1)).flatten(),
        outdated: outdated::count(column),
    }
}

/// A query of the failures of rows that are still there.
fn failures(column: &Column, select: &str) -> String {
    let matches = column.key().map_or_else(|_| "true".to_owned(), |key| key.matches("l"));
    format!(
        "SELECT {select} FROM {log} AS l WHERE l.kind = 'failed' AND EXISTS (SELECT FROM {from} AS p WHERE {matches})",
        log = column.log(),
        from = column.table.from(),
    )
}

/// The rows go to the server one by one: there may be as many as the table has.
#[pg_extern(sql = false)]
fn imgvec_failure_list(call: pg_sys::FunctionCallInfo) -> Option<i32> {
    // SAFETY: the call's own.
    let returned = unsafe { Returned::begin(call) };
    security::pinned(|| {
        for column in visible() {
            let Ok(key) = column.key() else { continue };
            let pairs: Vec<String> = key
                .0
                .iter()
                .enumerate()
                .map(|(place, it)| format!("{}, l.k{}", literal(&it.name), place + 1))
                .collect();
            let select = format!(
                "json_build_object({})::text, l.sqlstate, l.message, l.attempts, extract(epoch FROM l.at)::text",
                pairs.join(", ")
            );
            let sql = format!("{} ORDER BY l.at, 1", failures(&column, &select));
            // The log of a column may be gone, which imgvec_progress tells.
            let _ = subtransaction::caught(|| {
                security::as_owner(column.table.owner, || {
                    spi::each(&sql, |row| {
                        let text = |place| spi::text(&row.string(place)).1;
                        let row = [
                            column.table.oid.into_datum(),
                            spi::text(column.target()).1,
                            text(1),
                            text(2),
                            text(3),
                            i32::try_from(row.integer(4)).unwrap_or(i32::MAX).into_datum(),
                            row.string(5).parse().unwrap_or(0.0f64).into_datum(),
                        ];
                        // SAFETY: the columns that the function is declared with.
                        unsafe { returned.put(&row) };
                    });
                })
            });
        }
    });
    None
}
