//! What another column must have to take a column's place: no object that holds on to the old one, and indexes like its.

use super::column::{Column, Extension, Table};
use super::query;
use crate::server::spi;
use crate::server::utility::{IndexCopy, Statement};
use pgrx::pg_sys;

/// Objects that would go with the column, or keep it from going, in words. Indexes are made anew, and what `imgvec_maintain`
/// made goes with it.
pub fn obstacles(extension: &Extension, column: &Column) -> Vec<String> {
    let (table, number) = (&column.table, number(column));
    let sql = "SELECT DISTINCT CASE WHEN d.classid = 'pg_rewrite'::regclass
            THEN (SELECT pg_describe_object('pg_class'::regclass, w.ev_class, 0) FROM pg_rewrite w WHERE w.oid = d.objid)
            ELSE pg_describe_object(d.classid, d.objid, d.objsubid) END
        FROM pg_depend d WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = $1 AND d.refobjsubid = $2
        AND NOT (d.classid = 'pg_class'::regclass AND EXISTS (SELECT FROM pg_index i WHERE i.indexrelid = d.objid AND i.indrelid = $1))
        AND NOT (d.classid = 'pg_class'::regclass AND d.deptype = 'a' AND EXISTS (SELECT FROM pg_class c
            WHERE c.oid = d.objid AND c.oid IN (to_regclass($4), to_regclass($5))))
        AND NOT (d.classid = 'pg_trigger'::regclass AND EXISTS (SELECT FROM pg_trigger t WHERE t.oid = d.objid AND t.tgfoid = $3))
        ORDER BY 1";
    let arguments = [
        spi::oid(table.oid),
        spi::integer(i64::from(number)),
        spi::oid(extension.enqueue),
        spi::text(&column.queue()),
        spi::text(&column.log()),
    ];
    let mut found = spi::rows(sql, &arguments, |row| row.string(1));
    let sql = "SELECT attnotnull, attinhcount > 0 FROM pg_attribute WHERE attrelid = $1 AND attnum = $2";
    let arguments = [spi::oid(table.oid), spi::integer(i64::from(number))];
    let (is_not_null, is_inherited) =
        spi::first(sql, &arguments, |row| (row.is_true(1), row.is_true(2))).unwrap_or_default();
    // Since PostgreSQL 18 it is a constraint with a name, which is in the list.
    if is_not_null && !found.iter().any(|object| object.starts_with("constraint")) {
        found.push("its NOT NULL constraint".to_owned());
    }
    if is_inherited {
        found.push("the table that it is inherited from".to_owned());
    }
    let old = old_indexes(column);
    if table.is_partitioned() {
        found.extend(old.iter().map(|index| format!("index {} of a partitioned table", index.name)));
    }
    found
}

/// Indexes with expressions over the column, which say its number of dimensions more often than not.
pub fn expression_indexes(column: &Column) -> Vec<String> {
    let has_expression = |index: &&OldIndex| index.has_expressions;
    let old = old_indexes(column);
    old.iter()
        .filter(has_expression)
        .map(|index| format!("index {} over an expression", index.name))
        .collect()
}

/// The column's number.
pub fn number(column: &Column) -> i16 {
    column.table.number(column.target()).unwrap_or(0)
}

struct OldIndex {
    oid: pg_sys::Oid,
    name: String,
    /// Whether it is an ann index whose vectors are the column.
    is_ann: bool,
    has_expressions: bool,
}

/// Indexes with the column in them, in their order of creation.
fn old_indexes(column: &Column) -> Vec<OldIndex> {
    let sql = "SELECT DISTINCT c.oid, c.relname, m.amname = 'ann' AND i.indkey[0] = $2, i.indexprs IS NOT NULL
        FROM pg_depend d JOIN pg_index i ON i.indexrelid = d.objid JOIN pg_class c ON c.oid = d.objid JOIN pg_am m ON m.oid = c.relam
        WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
        AND d.refobjid = $1 AND d.refobjsubid = $2 AND i.indrelid = $1 AND i.indislive ORDER BY 1";
    let arguments = [spi::oid(column.table.oid), spi::integer(i64::from(number(column)))];
    spi::rows(sql, &arguments, |row| OldIndex {
        oid: row.oid(1),
        name: row.string(2),
        is_ann: row.is_true(3),
        has_expressions: row.is_true(4),
    })
}

/// What an index that follows an old one is now.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum State {
    Missing,
    /// A build of it was broken off, or goes on.
    Invalid,
    Valid,
}

/// An index of the old column, and the one that follows it.
pub struct Follower {
    pub old: pg_sys::Oid,
    pub old_name: String,
    pub name: String,
    pub state: State,
    pub is_ann: bool,
}

/// The indexes that the new column needs.
pub fn followers(old: &Column, next: &Column) -> Vec<Follower> {
    old_indexes(old).into_iter().map(|index| follower(&next.table, number(next), index)).collect()
}

fn follower(table: &Table, number: i16, index: OldIndex) -> Follower {
    let sql = "SELECT i.indisvalid, i.indrelid = $3 AND EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                AND d.refclassid = 'pg_class'::regclass AND d.refobjid = $3 AND d.refobjsubid = $4)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_index i ON i.indexrelid = c.oid
        WHERE n.nspname = $1::name AND c.relname = $2::name";
    // A name that something else has is passed by, and would be passed by again.
    (1..)
        .find_map(|count: u32| {
            let ending = if count == 1 { "_next".to_owned() } else { format!("_next{count}") };
            let name = query::name(&index.name, &ending);
            let arguments = [
                spi::text(&table.schema),
                spi::text(&name),
                spi::oid(table.oid),
                spi::integer(i64::from(number)),
            ];
            let state = match spi::first(sql, &arguments, |row| (row.is_true(1), row.is_true(2))) {
                None => State::Missing,
                Some((_, false)) => return None,
                Some((true, true)) => State::Valid,
                Some((false, true)) => State::Invalid,
            };
            Some((name, state))
        })
        .map(|(name, state)| Follower {
            old: index.oid,
            old_name: index.name,
            name,
            state,
            is_ann: index.is_ann,
        })
        .expect("numbers do not end")
}

/// The statement that builds a missing index.
pub fn create_statement(old: &Column, next: &Column, follower: &Follower) -> Statement {
    let model = [("model", next.definition.model.as_str())];
    Statement::create_index(&IndexCopy {
        index: follower.old,
        table: (&next.table.schema, &next.table.name),
        from: (number(old), old.target()),
        to: (number(next), next.target()),
        name: &follower.name,
        options: if follower.is_ann { &model } else { &[] },
    })
}

/// Tells the indexes of a column which model its embeddings are of.
pub fn tell_model(column: &Column) {
    for index in old_indexes(column).iter().filter(|index| index.is_ann) {
        let sql = format!(
            "ALTER INDEX {} SET (model = {})",
            query::qualified(&column.table.schema, &index.name),
            query::literal(&column.definition.model)
        );
        spi::run(&sql, &[]);
    }
}
