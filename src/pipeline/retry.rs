//! `imgvec_retry`: queues failed rows again.

use super::column::Extension;
use super::declare::{chosen, owned};
use super::query::literal;
use crate::error::{OrRaise, Report, pipeline as error};
use crate::server::{security, spi};
use crate::types::datum::Text;
use pgrx::prelude::*;

#[pg_extern]
fn imgvec_retry(relation: Option<pg_sys::Oid>, target: Option<Text<'_>>, code: Option<Text<'_>>) -> i64 {
    let Some(relation) = relation else { error::missing_argument("relation").raise() };
    let rows: Result<u64, Report> = security::pinned(|| {
        let extension = Extension::find();
        let table = owned(relation)?;
        let columns = chosen(&extension, &table, target.as_ref().map(Text::as_str))?;
        let mut rows = 0;
        for column in columns {
            let key = column.key()?;
            let code = code
                .as_ref()
                .map_or("true".to_owned(), |code| format!("sqlstate = {}", literal(code.as_str())));
            let sql = format!(
                "WITH again AS (UPDATE {log} AS l SET kind = 'retry', attempts = 0, not_before = 'infinity'
                     WHERE kind IN ('failed', 'retry') AND not_before IS DISTINCT FROM 'infinity' AND {code} RETURNING {stored})
                 INSERT INTO {queue} SELECT a.*, now() FROM again AS a",
                log = column.log(),
                stored = key.stored("l."),
                queue = column.queue(),
            );
            rows += security::as_owner(column.table.owner, || spi::run(&sql, &[]));
        }
        Ok(rows)
    });
    i64::try_from(rows.or_raise()).unwrap_or(i64::MAX)
}
