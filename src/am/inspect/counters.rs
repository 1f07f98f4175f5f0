//! `ann_scan_counters`: what scans cost, index by index.

use crate::am::stats;
use pgrx::iter::TableIterator;
use pgrx::prelude::*;

/// What scans cost in this session.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "the columns of the view")]
fn ann_scan_counters() -> TableIterator<
    'static,
    (
        name!(index, pg_sys::Oid),
        name!(scans, i64),
        name!(rows_fetched, i64),
        name!(pages_read, i64),
        name!(exact_distances, i64),
        name!(estimates, i64),
        name!(late_rows, i64),
        name!(stale_links, i64),
        name!(limited_scans, i64),
    ),
> {
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    TableIterator::new(stats::all().into_iter().map(move |(oid, s)| {
        (
            oid,
            number(s.scans),
            number(s.rows),
            number(s.walk.hops + s.walk.stale_links + s.walk.swept_pages),
            number(s.walk.hops),
            number(s.walk.estimates),
            number(s.walk.late),
            number(s.walk.stale_links),
            number(s.limited),
        )
    }))
}
