//! What another column must have to take a column's place: no object that holds on to the old one, and indexes like its.

use super::column::{Column, Extension, Table};
use super::query;
use crate::server::spi;
use crate::server::utility::{IndexCopy, Statement};
use pgrx::pg_sys;

/// The tables that have the column: its own, and all partitions of that.
fn tables_of(column: &Column) -> Vec<Table> {
    let Column { table, .. } = column;
    if !table.is_partitioned() {
        return vec![table.clone()];
    }
    let sql = "SELECT relid::oid FROM pg_partition_tree($1) ORDER BY level, relid";
    let all = spi::rows(sql, &[spi::oid(table.oid)], |row| row.oid(1));
    all.into_iter().filter_map(Table::find).collect()
}

/// Objects that would go with the column, or keep it from going, in words. Indexes are made again, and what `imgvec_maintain`
/// made goes with it.
pub fn obstacles(extension: &Extension, column: &Column) -> Vec<String> {
    let mut found = Vec::new();
    for table in tables_of(column) {
        found.extend(obstacles_in(extension, column, &table));
    }
    let sql = "SELECT FROM pg_attribute WHERE attrelid = $1 AND attnum = $2 AND attinhcount > 0";
    let arguments = [spi::oid(column.table.oid), spi::integer(i64::from(number(column)))];
    if spi::first(sql, &arguments, |_| ()).is_some() {
        found.push("the table that it is inherited from".to_owned());
    }
    found.dedup();
    found
}

/// Those of one table.
fn obstacles_in(extension: &Extension, column: &Column, table: &Table) -> Vec<String> {
    let number = table.number(column.target()).unwrap_or(0);
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
    let sql = "SELECT FROM pg_attribute WHERE attrelid = $1 AND attnum = $2 AND attnotnull";
    let arguments = [spi::oid(table.oid), spi::integer(i64::from(number))];
    let is_not_null = spi::first(sql, &arguments, |_| ()).is_some();
    // Since PostgreSQL 18 it is a constraint with a name, which is in the list.
    if is_not_null && !found.iter().any(|object| object.starts_with("constraint")) {
        found.push("its NOT NULL constraint".to_owned());
    }
    found
}

/// Indexes with expressions over the column, which say its number of dimensions more often than not.
pub fn expression_indexes(column: &Column) -> Vec<String> {
    let old = old_indexes(column);
    old.iter()
        .filter(|index| index.has_expressions)
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
    /// The column's table, or a partition.
    table: Table,
    /// Whether it is an ann index whose vectors are the column.
    is_ann: bool,
    has_expressions: bool,
    /// Whether it stands for those of partitions, and holds nothing itself.
    is_parent: bool,
}

/// Indexes with the column in them, those of partitions too, in their order of creation for each table.
fn old_indexes(column: &Column) -> Vec<OldIndex> {
    let sql = "SELECT DISTINCT c.oid, c.relname, m.amname = 'ann' AND i.indkey[0] = $2, i.indexprs IS NOT NULL, c.relkind = 'I'
        FROM pg_depend d JOIN pg_index i ON i.indexrelid = d.objid JOIN pg_class c ON c.oid = d.objid JOIN pg_am m ON m.oid = c.relam
        WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
        AND d.refobjid = $1 AND d.refobjsubid = $2 AND i.indrelid = $1 AND i.indislive ORDER BY 1";
    let mut all = Vec::new();
    for table in tables_of(column) {
        let Some(number) = table.number(column.target()) else { continue };
        let arguments = [spi::oid(table.oid), spi::integer(i64::from(number))];
        all.extend(spi::rows(sql, &arguments, |row| OldIndex {
            oid: row.oid(1),
            name: row.string(2),
            table: table.clone(),
            is_ann: row.is_true(3),
            has_expressions: row.is_true(4),
            is_parent: row.is_true(5),
        }));
    }
    all
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
    /// The table that both are of.
    pub table: Table,
}

/// The indexes that the new column needs, beside those that only stand for others.
pub fn followers(old: &Column, next: &Column) -> Vec<Follower> {
    let old = old_indexes(old).into_iter().filter(|index| !index.is_parent);
    old.map(|index| follower(next, index)).collect()
}

/// Makes the indexes of partitioned tables, out of those of their partitions, which must be there. Answers what each is
/// called, and what the old one is called: schema, name and that name.
pub fn create_parents(old: &Column, next: &Column, followers: &[Follower]) -> Vec<(String, String, String)> {
    let parents: Vec<OldIndex> = old_indexes(old).into_iter().filter(|index| index.is_parent).collect();
    let mut names: Vec<(pg_sys::Oid, String, String)> = followers
        .iter()
        .map(|follower| (follower.old, follower.table.schema.clone(), follower.name.clone()))
        .collect();
    for parent in &parents {
        let name = super::tables::unused(&parent.table.schema, &parent.name, "_next");
        // A column that is maintained says its model itself, and an option of this kind of index cannot be changed.
        let options: &[_] = if parent.is_ann { &[("model", None)] } else { &[] };
        copy(old, next, (parent.oid, &parent.table), &name, options, true).run_within();
        names.push((parent.oid, parent.table.schema.clone(), name));
    }
    let sql = "SELECT inhparent FROM pg_inherits WHERE inhrelid = $1";
    for (child, schema, name) in &names {
        let parent = spi::first(sql, &[spi::oid(*child)], |row| row.oid(1));
        if let Some(parent) = names.iter().find(|it| Some(it.0) == parent) {
            let (parent, child) = (query::qualified(&parent.1, &parent.2), query::qualified(schema, name));
            spi::run(&format!("ALTER INDEX {parent} ATTACH PARTITION {child}"), &[]);
        }
    }
    let made = names.split_off(followers.len());
    made.into_iter().zip(parents).map(|((_, schema, name), parent)| (schema, name, parent.name)).collect()
}

fn follower(next: &Column, index: OldIndex) -> Follower {
    let OldIndex { table, .. } = index;
    let number = table.number(next.target()).unwrap_or(0);
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
            table,
        })
        .expect("numbers do not end")
}

/// The statement that builds a missing index.
pub fn create_statement(old: &Column, next: &Column, follower: &Follower) -> Statement {
    let model = [("model", Some(next.definition.model.as_str()))];
    let options: &[_] = if follower.is_ann { &model } else { &[] };
    copy(old, next, (follower.old, &follower.table), &follower.name, options, false)
}

/// The statement that makes an index of a table like another one, over the new column.
fn copy(
    old: &Column,
    next: &Column,
    (index, table): (pg_sys::Oid, &Table),
    name: &str,
    options: &[(&str, Option<&str>)],
    is_parent: bool,
) -> Statement {
    let column = |column: &str| table.number(column).unwrap_or(0);
    Statement::create_index(&IndexCopy {
        index,
        table: (&table.schema, &table.name),
        from: (column(old.target()), old.target()),
        to: (column(next.target()), next.target()),
        name,
        options,
        is_parent,
    })
}

/// Tells the indexes of a column which model its embeddings are of. Those of partitioned tables have no options that could be
/// changed.
pub fn tell_model(column: &Column) {
    for index in old_indexes(column).iter().filter(|index| index.is_ann && !index.is_parent) {
        let sql = format!(
            "ALTER INDEX {} SET (model = {})",
            query::qualified(&index.table.schema, &index.name),
            query::literal(&column.definition.model)
        );
        spi::run(&sql, &[]);
    }
}
