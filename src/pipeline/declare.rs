//! `imgvec_maintain`: declares a column, or ends that.

use super::column::{Column, Extension, Key, Table};
use super::definition::{Definition, Kind, VERSION};
use super::query::{literal, qualified};
use super::{successor, tables};
use crate::embed;
use crate::error::{OrRaise, Report, pipeline as error};
use crate::guc;
use crate::server::{expression, security, spi};
use crate::types::datum::Text;
use pgrx::prelude::*;
use std::collections::BTreeMap;

/// Which rows a backfill embeds.
const BACKFILLS: [&str; 3] = ["missing", "all", "none"];

#[pg_extern]
fn imgvec_maintain(
    relation: Option<pg_sys::Oid>,
    source: Option<Text<'_>>,
    target: Option<Text<'_>>,
    model: Option<Text<'_>>,
    backfill: Option<Text<'_>>,
    stop: Option<bool>,
) {
    let Some(relation) = relation else { error::missing_argument("relation").raise() };
    let (table, extension) = security::pinned(|| (owned(relation).or_raise(), Extension::find()));
    let text = |argument: &Option<Text<'_>>| argument.as_ref().map(|text| text.as_str().to_owned());
    let (source, target, model) = (text(&source), text(&target), text(&model));
    if stop == Some(true) {
        security::pinned(|| end(&extension, &table, target.as_deref()));
        return;
    }
    let backfill = text(&backfill).unwrap_or_else(|| BACKFILLS[0].to_owned());
    if !BACKFILLS.contains(&backfill.as_str()) {
        error::bad_choice("backfill", &backfill, "\"missing\", \"all\" or \"none\"").raise();
    }
    let Some(source) = source else { error::missing_argument("source").raise() };
    let Some(target) = target else { error::missing_argument("target").raise() };
    let model = model.unwrap_or_else(guc::default_model);
    // What is looked at stays as it is until the transaction ends, and every row that is not seen by the backfill comes
    // through the triggers.
    security::pinned(|| {
        spi::run(&format!("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE", table.qualified()), &[])
    });
    let table = security::pinned(|| owned(relation)).or_raise();
    security::pinned(|| refuse_unfit(&table));
    declare(&extension, &table, &source, &target, &model, &backfill).or_raise();
}

/// The table, if it is one that the current user may do this with.
///
/// # Errors
/// If it is none, or belongs to somebody else.
pub fn owned(relation: pg_sys::Oid) -> Result<Table, Report> {
    let Some(table) = Table::find(relation) else { return Err(error::no_relation(relation.to_u32())) };
    if !matches!(table.kind, b'r' | b'p') {
        return Err(error::wrong_kind(&table.name));
    }
    if !security::owns(relation) {
        return Err(error::not_the_owner(&table.qualified(), &table.owner_name));
    }
    if table.persistence == b't' {
        return Err(error::temporary(&table.name));
    }
    Ok(table)
}

/// Refuses a table whose rows could not all be written: those of children lie elsewhere, and rules rewrite the statement.
fn refuse_unfit(table: &Table) {
    let children = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = $1 LIMIT 1";
    if !table.is_partitioned()
        && let Some(child) = spi::first(children, &[spi::oid(table.oid)], |row| row.string(1))
    {
        error::has_children(&table.name, &child).raise();
    }
    let rules =
        "SELECT rulename FROM pg_rewrite WHERE ev_class = $1 AND ev_type = '2' AND ev_enabled <> 'D' LIMIT 1";
    if let Some(rule) = spi::first(rules, &[spi::oid(table.oid)], |row| row.string(1)) {
        error::has_rule(&table.name, &rule).raise();
    }
}

/// The maintained columns of a table that a call means: the one of that name, or all.
///
/// # Errors
/// If there is none.
pub fn chosen(extension: &Extension, table: &Table, target: Option<&str>) -> Result<Vec<Column>, Report> {
    let mut columns = Column::all(extension, Some(table.oid));
    if let Some(target) = target {
        columns.retain(|column| column.target() == target);
    }
    if columns.is_empty() { Err(not_chosen(extension, table, target)) } else { Ok(columns) }
}

/// Why there is no such column.
pub fn not_chosen(extension: &Extension, table: &Table, target: Option<&str>) -> Report {
    let declared = Column::declared(extension, Some(table.oid));
    let doubtful = declared.iter().find_map(|(column, doubt)| {
        let doubt = doubt.as_ref().filter(|_| target.is_none_or(|target| column.target() == target))?;
        Some(doubt.report(column))
    });
    doubtful.unwrap_or_else(|| error::not_maintained(&table.qualified(), target))
}

fn end(extension: &Extension, table: &Table, target: Option<&str>) {
    let is_meant = |column: &Column| target.is_none_or(|target| column.target() == target);
    let mut is_any = false;
    for column in Column::all(extension, Some(table.oid)).iter().filter(|column| is_meant(column)) {
        tables::drop(extension, column);
        is_any = true;
    }
    for (column, _) in Column::declared(extension, Some(table.oid)) {
        if is_meant(&column) {
            tables::drop_doubtful(extension, &column);
            is_any = true;
        }
    }
    if !is_any {
        error::not_maintained(&table.qualified(), target).raise();
    }
}

/// Type modifier of the target.
///
/// # Errors
/// If it cannot hold embeddings.
pub fn check_target(extension: &Extension, table: &Table, target: &str) -> Result<i32, Report> {
    let Some(number) = table.number(target) else {
        return Err(error::no_column(&table.qualified(), target));
    };
    let sql = "SELECT a.attgenerated <> '' OR a.attidentity <> '', format_type(a.atttypid, a.atttypmod), a.atttypmod, a.atttypid = $3 OR EXISTS (
            SELECT FROM pg_cast WHERE castsource = $3 AND casttarget = a.atttypid AND castcontext IN ('a', 'i'))
            AND t.typtype = 'b' AND t.typcategory = 'U'
        FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid WHERE a.attrelid = $1 AND a.attnum = $2";
    let arguments = [spi::oid(table.oid), spi::integer(i64::from(number)), spi::oid(extension.vector)];
    let found =
        spi::first(sql, &arguments, |row| (row.is_true(1), row.string(2), row.integer(3), row.is_true(4)));
    let (is_generated, type_name, modifier, fits) = found.expect("a column of the table");
    if is_generated {
        return Err(error::generated(target));
    }
    if !fits {
        return Err(error::wrong_target_type(target, &type_name));
    }
    Ok(i32::try_from(modifier).unwrap_or(-1))
}

fn kind_of(source: &str, data_type: pg_sys::Oid) -> Result<Kind, Report> {
    let sql = "SELECT typcategory = 'S', format_type(oid, NULL) FROM pg_type WHERE oid = $1";
    let (is_string, name) =
        spi::first(sql, &[spi::oid(data_type)], |row| (row.is_true(1), row.string(2))).unwrap_or_default();
    match data_type {
        pg_sys::BYTEAOID => Ok(Kind::Image),
        // A bare literal.
        pg_sys::UNKNOWNOID => Ok(Kind::Text),
        _ if is_string => Ok(Kind::Text),
        _ => Err(error::wrong_source_type(source, &name)),
    }
}

/// The dimensions of a model that embeds this kind of input, if its package says so.
///
/// # Errors
/// If it does not, or there is none of that name.
pub fn dimensions(model: &str, kind: Kind) -> Result<Option<usize>, Report> {
    let facts = embed::facts(model)?;
    match kind {
        Kind::Image if !facts.images => Err(error::wrong_modality(model, "images")),
        Kind::Text if !facts.texts => Err(error::wrong_modality(model, "texts")),
        Kind::Image | Kind::Text => Ok(facts.dim),
    }
}

fn check_model(model: &str, kind: Kind, target: &str, modifier: i32) -> Result<(), Report> {
    match dimensions(model, kind)? {
        Some(dim) if modifier > 0 && usize::try_from(modifier) != Ok(dim) => {
            Err(error::wrong_dimensions(target, modifier, model, dim))
        }
        _ => Ok(()),
    }
}

fn declare(
    extension: &Extension,
    table: &Table,
    source: &str,
    target: &str,
    model: &str,
    backfill: &str,
) -> Result<(), Report> {
    let modifier = security::pinned(|| check_target(extension, table, target))?;
    // The source is read by the caller's search path, as everything that the caller writes, and with the rights that it is
    // evaluated with. A literal may be read by a type of the owner, whose code is no business of the caller's rights.
    let source = security::as_owner_by_path(table.owner, || {
        expression::analyze(table.oid, &table.from(), &[], source)
    })?;
    let kind = security::pinned(|| kind_of(&source.text, source.data_type))?;
    let number = table.number(target).expect("checked");
    // The row as a whole has the target too.
    let Some(watched) = source.columns.filter(|columns| !columns.contains(&number)) else {
        return Err(error::source_reads_target(target));
    };
    let watch: Vec<String> = watched.iter().filter_map(|number| table.columns.get(number).cloned()).collect();
    check_model(model, kind, target, modifier)?;
    security::pinned(|| {
        let declared = Column::declared(extension, Some(table.oid));
        let mut others = declared.iter().filter(|(column, _)| column.target() == target);
        if let Some((other, _)) = others.clone().find(|(_, doubt)| doubt.is_none()) {
            let other = &other.definition;
            return Err(error::already_maintained(&table.qualified(), target, &other.source, &other.model));
        }
        if let Some((other, Some(doubt))) = others.next() {
            return Err(doubt.report(other));
        }
        let Some(key) = Key::find(table.oid, None) else {
            return Err(error::no_key(&table.qualified()));
        };
        let stem = format!("{}_{target}", table.name);
        let schema = &table.schema;
        let mut columns: BTreeMap<String, i16> =
            key.0.iter().map(|column| (column.name.clone(), column.number)).collect();
        columns.insert(target.to_owned(), number);
        for name in &watch {
            columns.extend(table.number(name).map(|number| (name.clone(), number)));
        }
        let definition = Definition {
            version: VERSION,
            target: target.to_owned(),
            source: source.text,
            kind,
            model: model.to_owned(),
            queue: (schema.clone(), tables::unused(schema, &stem, "_queue")),
            log: (schema.clone(), tables::unused(schema, &stem, "_log")),
            relation: table.oid.to_u32(),
            tables: (0, 0),
            columns,
            key: key.0.iter().map(|column| column.name.clone()).collect(),
            watch,
            is_column: source.is_column,
            succeeds: None,
        };
        let column = tables::create(extension, table, &key, definition);
        successor::tell_model(&column);
        let definition = column.definition;
        // Under the lock, and by a snapshot that was taken with it, a table without rows has none to go back for.
        let is_empty = || spi::first(&format!("SELECT FROM {} LIMIT 1", table.from()), &[], |_| ()).is_none();
        if backfill != "none" && !(security::sees_commits() && is_empty()) {
            let log = qualified(&definition.log.0, &definition.log.1);
            let sql = format!(
                "INSERT INTO {log} (kind, at, message, rows) VALUES ('backfill', now(), {}, 0)",
                literal(backfill)
            );
            spi::run(&sql, &[]);
        }
        Ok(())
    })
}
