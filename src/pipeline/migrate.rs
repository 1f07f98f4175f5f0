//! `imgvec_migrate`: gives a column another model while it answers queries.
//!
//! Each step is a separate transaction and visible in the catalogs, so a second call continues after the last finished step.
//!
//! 1. A second column is added, with its own triggers and queue.
//! 2. Its queue is worked until it is empty.
//! 3. Indexes like those of the first column are built, by a background worker (`indexer.rs`).
//! 4. Their recall is measured.
//! 5. Under a short lock, the first column is dropped, and the second one takes its name and its indexes' names.

use super::column::{Column, Extension, Table};
use super::declare::{check_target, dimensions, not_chosen, owned};
use super::definition::{Definition, VERSION};
use super::query::{literal, qualified, quoted};
use super::successor::{self, Follower, State};
use super::work::work;
use super::{indexer, tables};
use crate::error::{Code, OrRaise, Report, pipeline as error};
use crate::server::{is_standby, latch, security, spi, subtransaction};
use crate::types::datum::Text;
use pgrx::prelude::*;
use std::time::{Duration, Instant};

/// How long a statement may wait for a lock that others then wait behind.
const LOCK_TIMEOUT: &str = "50ms";
/// The pause before the next attempt; it grows to the second one.
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Attempts until the caller is told that somebody is in the way.
const PATIENCE: u32 = 20;
/// Rows that may wait when the columns change places. They have been changed a moment ago, and are embedded a moment later.
const MOST_WAITING: i64 = 100;
/// Queries by which recall is measured, and how many neighbors are asked for.
const SAMPLES: u32 = 100;
const NEIGHBORS: u32 = 10;

/// A migration that goes on.
struct Migration {
    old: Column,
    next: Column,
}

#[pg_extern]
fn imgvec_migrate(
    relation: Option<pg_sys::Oid>,
    target: Option<Text<'_>>,
    model: Option<Text<'_>>,
    min_recall: Option<f64>,
    accept_failures: Option<bool>,
    give_up: Option<bool>,
    call: pg_sys::FunctionCallInfo,
) {
    if is_standby() {
        error::in_recovery("imgvec_migrate").raise();
    }
    // SAFETY: the call's own data.
    let Some(procedure) = (unsafe { spi::Procedure::begin(call) }) else {
        error::in_transaction("imgvec_migrate").raise()
    };
    let text = |argument: &Option<Text<'_>>| argument.as_ref().map(|text| text.as_str().to_owned());
    let (target, model) = (text(&target), text(&model));
    let min_recall = min_recall.unwrap_or(0.0);
    if !(0.0..=1.0).contains(&min_recall) {
        error::bad_recall(min_recall).raise();
    }
    let Some(relation) = relation else { error::missing_argument("relation").raise() };
    let Some(target) = target else { error::missing_argument("target").raise() };
    procedure.commit();
    if give_up == Some(true) {
        abandon(&procedure, relation, &target);
    } else {
        let accepts_failures = accept_failures == Some(true);
        migrate(&procedure, relation, &target, model.as_deref(), min_recall, accepts_failures);
    }
    procedure.end();
}

fn migrate(
    procedure: &spi::Procedure,
    relation: pg_sys::Oid,
    target: &str,
    model: Option<&str>,
    min_recall: f64,
    accepts_failures: bool,
) {
    let found = spi::with_snapshot(|| security::pinned(|| find(relation, target))).or_raise();
    match (found, model) {
        (Found::Under(migration), Some(model)) if migration.next.definition.model != model => {
            error::other_migration(&migration.old.title(), &migration.next.definition.model).raise()
        }
        (Found::Under(_), _) => {}
        (Found::Not(_), None) => error::missing_argument("model").raise(),
        (Found::Not(old), Some(model)) => {
            // The model is opened before anything is locked.
            let data_type = spi::with_snapshot(|| next_type(&old, model)).or_raise();
            patiently(procedure, &old.title(), || begin(relation, target, model, &data_type));
        }
    }
    let mut measured = false;
    loop {
        pgrx::check_for_interrupts!();
        let migration = spi::with_snapshot(|| load(relation, target));
        work(procedure, &migration.next);
        if !accepts_failures {
            spi::with_snapshot(|| refuse_failures(&migration));
        }
        procedure.commit();
        build_indexes(procedure, relation, target);
        if !measured {
            spi::with_snapshot(|| check_recall(&migration, min_recall));
            procedure.commit();
            measured = true;
        }
        let locked =
            patiently(procedure, &migration.old.title(), || swap(relation, target, accepts_failures));
        if let Some(locked) = locked {
            let (title, model) = (migration.old.title(), &migration.next.definition.model);
            let milliseconds = locked.elapsed().as_millis();
            tell(format!("{title} now has model \"{model}\"; its table was locked for {milliseconds} ms"));
            return;
        }
    }
}

fn tell(text: String) {
    Report::new(Code::ERRCODE_SUCCESSFUL_COMPLETION, text).notice();
}

enum Found {
    Not(Box<Column>),
    Under(Box<Migration>),
}

/// The column, with the one that is to take its place, if there is one.
fn find(relation: pg_sys::Oid, target: &str) -> Result<Found, Report> {
    let table = owned(relation)?;
    let extension = Extension::find();
    let columns = Column::all(&extension, Some(relation));
    let Some(old) = columns.iter().find(|it| it.target() == target) else {
        return Err(not_chosen(&extension, &table, Some(target)));
    };
    let next = columns.iter().find(|it| it.predecessor() == Some(target));
    Ok(match next {
        Some(next) => Found::Under(Box::new(Migration { old: old.clone(), next: next.clone() })),
        None => Found::Not(Box::new(old.clone())),
    })
}

/// The migration as it is now; an error if another session has ended it.
fn load(relation: pg_sys::Oid, target: &str) -> Migration {
    match security::pinned(|| find(relation, target)).or_raise() {
        Found::Under(migration) => *migration,
        Found::Not(old) => error::no_migration(&old.title()).raise(),
    }
}

/// Runs `work`, which locks a table against everybody, in a transaction of its own; as often as it takes to get the lock
/// without having others wait for long.
fn patiently<T>(procedure: &spi::Procedure, title: &str, mut work: impl FnMut() -> T) -> T {
    let mut pause = PAUSE;
    for attempt in 1.. {
        let result = spi::with_snapshot(|| {
            subtransaction::caught(|| {
                security::pinned(|| {
                    spi::run(&format!("SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"), &[]);
                    work()
                })
            })
        });
        match result {
            Ok(value) => {
                procedure.commit();
                return value;
            }
            Err(report) if matches!(report.sqlstate().as_str(), "55P03" | "40P01") => {
                procedure.commit();
                if attempt % PATIENCE == 0 {
                    tell(format!("waiting for other sessions to release their locks on {title}"));
                }
                latch::wait(pause);
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            Err(report) => report.raise(),
        }
    }
    unreachable!("attempts do not end")
}

fn lock(table: &Table) {
    spi::run(&format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", table.qualified()), &[]);
}

/// The type of a column that takes a model's embeddings: that of the old one, with the model's number of dimensions.
fn next_type(old: &Column, model: &str) -> Result<(String, usize), Report> {
    // A package that does not tell, until the model has run.
    let Some(dim) = dimensions(model, old.definition.kind)? else {
        return Err(error::unknown_dimensions(model));
    };
    let sql = "SELECT format_type(a.atttypid, NULL), a.atttypmod FROM pg_attribute a WHERE a.attrelid = $1 AND a.attnum = $2";
    let arguments = [spi::oid(old.table.oid), spi::integer(i64::from(successor::number(old)))];
    let (name, modifier) = security::pinned(|| {
        spi::first(sql, &arguments, |row| (row.string(1), row.integer(2))).expect("a column of the table")
    });
    let is_same = modifier <= 0 || usize::try_from(modifier) == Ok(dim);
    let expressions = security::pinned(|| successor::expression_indexes(old));
    if !is_same && !expressions.is_empty() {
        return Err(error::in_the_way(&old.title(), &expressions));
    }
    let name = if modifier > 0 { format!("{name}({dim})") } else { name };
    Ok((name, dim))
}

/// Makes the second column, with all that it needs to fill.
fn begin(relation: pg_sys::Oid, target: &str, model: &str, data_type: &(String, usize)) {
    let extension = Extension::find();
    let table = owned(relation).or_raise();
    if table.is_partition {
        error::is_partition(&table.qualified()).raise();
    }
    lock(&table);
    let old = match find(relation, target).or_raise() {
        Found::Not(old) => old,
        // Another session was faster.
        Found::Under(_) => return,
    };
    refuse_obstacles(&extension, &old);
    // A domain's checks would run as the caller when the column is added; and a declaration is not sure to be of ours.
    check_target(&extension, &table, old.target()).or_raise();
    let key = old.key().or_raise();
    let name = unused_column(&old);
    let qualified_table = old.table.qualified();
    spi::run(&format!("ALTER TABLE {qualified_table} ADD COLUMN {} {}", quoted(&name), data_type.0), &[]);
    for statement in likeness(&old, &name) {
        spi::run(&statement, &[]);
    }
    let table = owned(relation).or_raise();
    let mut columns = old.definition.columns.clone();
    for (declared, number) in &mut columns {
        *number = old.name(declared).and_then(|name| table.number(name)).unwrap_or(*number);
    }
    columns.insert(name.clone(), table.number(&name).expect("just made"));
    let stem = format!("{}_{target}", table.name);
    let definition = Definition {
        version: VERSION,
        target: name,
        model: model.to_owned(),
        queue: (table.schema.clone(), tables::unused(&table.schema, &stem, "_queue")),
        log: (table.schema.clone(), tables::unused(&table.schema, &stem, "_log")),
        relation: table.oid.to_u32(),
        columns,
        succeeds: Some(old.definition.target.clone()),
        ..old.definition.clone()
    };
    let definition = tables::create(&extension, &table, &key, definition).definition;
    spi::run(
        &format!(
            "INSERT INTO {} (kind, at, message, rows) VALUES ('backfill', now(), 'missing', 0)",
            qualified(&definition.log.0, &definition.log.1)
        ),
        &[],
    );
}

/// A name that no column has, nor had when the old one was declared.
fn unused_column(old: &Column) -> String {
    (1..)
        .map(|count: u32| {
            let ending = if count == 1 { "_next".to_owned() } else { format!("_next{count}") };
            super::query::name(old.target(), &ending)
        })
        .find(|name| old.table.number(name).is_none() && !old.definition.columns.contains_key(name))
        .expect("numbers do not end")
}

/// Statements that give the new column what the old one has beside its values: storage, statistics, grants, a comment.
fn likeness(old: &Column, name: &str) -> Vec<String> {
    let (table, name) = (old.table.qualified(), quoted(name));
    let sql = "SELECT CASE a.attstorage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'x' THEN 'EXTENDED' ELSE 'MAIN' END,
            coalesce(a.attstattarget, -1), col_description(a.attrelid, a.attnum),
            (SELECT string_agg(format('%I = %s', option_name, option_value), ', ') FROM pg_options_to_table(a.attoptions))
        FROM pg_attribute a WHERE a.attrelid = $1 AND a.attnum = $2";
    let arguments = [spi::oid(old.table.oid), spi::integer(i64::from(successor::number(old)))];
    let mut statements = Vec::new();
    let found = spi::first(sql, &arguments, |row| (row.string(1), row.integer(2), row.text(3), row.text(4)));
    if let Some((storage, statistics, comment, options)) = found {
        statements.push(format!("ALTER TABLE {table} ALTER COLUMN {name} SET STORAGE {storage}"));
        if statistics >= 0 {
            statements.push(format!("ALTER TABLE {table} ALTER COLUMN {name} SET STATISTICS {statistics}"));
        }
        if let Some(options) = options {
            statements.push(format!("ALTER TABLE {table} ALTER COLUMN {name} SET ({options})"));
        }
        if let Some(comment) = comment {
            statements.push(format!("COMMENT ON COLUMN {table}.{name} IS {}", literal(&comment)));
        }
    }
    let sql = "SELECT x.privilege_type, CASE WHEN x.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END, x.is_grantable
        FROM pg_attribute a CROSS JOIN LATERAL aclexplode(a.attacl) AS x WHERE a.attrelid = $1 AND a.attnum = $2";
    statements.extend(spi::rows(sql, &arguments, |row| {
        let option = if row.is_true(3) { " WITH GRANT OPTION" } else { "" };
        format!("GRANT {} ({name}) ON {table} TO {}{option}", row.string(1), row.string(2))
    }));
    statements
}

fn refuse_obstacles(extension: &Extension, old: &Column) {
    let found = successor::obstacles(extension, old);
    if !found.is_empty() {
        error::in_the_way(&old.title(), &found).raise();
    }
}

/// Refuses to go on where rows would lose their embedding, since the new model has none for them.
fn refuse_failures(migration: &Migration) {
    let Migration { old, next } = migration;
    let count = security::pinned(|| {
        security::as_owner(old.table.owner, || {
            let Ok(key) = next.key() else { return 0 };
            let sql = format!(
                "SELECT count(*) FROM {log} AS l, {table} AS p WHERE l.kind IN ('failed', 'retry') AND {matches}
                 AND p.{target} IS NOT NULL AND p.{next} IS NULL",
                log = next.log(),
                table = next.table.from(),
                matches = key.matches("l"),
                target = quoted(old.target()),
                next = quoted(next.target()),
            );
            spi::first(&sql, &[], |row| row.integer(1)).unwrap_or(0)
        })
    });
    if count > 0 {
        error::rows_would_be_lost(&old.title(), next.target(), &next.definition.model, count).raise();
    }
}

/// The indexes of the new column, each with the old one that it follows.
fn followers(migration: &Migration) -> Vec<Follower> {
    security::pinned(|| successor::followers(&migration.old, &migration.next))
}

fn is_missing(followers: &[Follower]) -> Option<&Follower> {
    followers.iter().find(|follower| follower.state != State::Valid)
}

fn build_indexes(procedure: &spi::Procedure, relation: pg_sys::Oid, target: &str) {
    let (number, is_complete) = spi::with_snapshot(|| {
        let migration = load(relation, target);
        (successor::number(&migration.next), is_missing(&followers(&migration)).is_none())
    });
    procedure.commit();
    if is_complete {
        return;
    }
    // Without a snapshot and without a lock: the build waits for whoever has them.
    let was_started = indexer::build(relation, number);
    procedure.commit();
    spi::with_snapshot(|| {
        let migration = load(relation, target);
        let followers = followers(&migration);
        let Some(missing) = is_missing(&followers) else { return };
        if !was_started {
            error::no_index_builder(&missing.name, &missing.old_name, migration.next.target()).raise();
        }
        let why = security::pinned(|| {
            security::as_owner(migration.next.table.owner, || {
                let sql = format!(
                    "SELECT sqlstate || ' ' || message FROM {} WHERE kind = 'error'",
                    migration.next.log()
                );
                spi::first(&sql, &[], |row| row.string(1))
            })
        });
        error::index_not_built(&missing.name, why).raise();
    });
}

fn check_recall(migration: &Migration, least: f64) {
    if least <= 0.0 {
        return;
    }
    let schema = security::pinned(Extension::find).schema;
    for follower in followers(migration).iter().filter(|follower| follower.is_ann) {
        let index = qualified(&follower.table.schema, &follower.name);
        let sql = format!(
            "SELECT {}.ann_index_recall({}::pg_catalog.regclass, {NEIGHBORS}, {SAMPLES})::text",
            quoted(&schema),
            literal(&index)
        );
        let recall = security::pinned(|| spi::first(&sql, &[], |row| row.text(1)).flatten());
        // An index without rows has none.
        let Some(recall) = recall.and_then(|recall| recall.parse::<f64>().ok()) else { continue };
        tell(format!("index {index} finds {recall:.3} of the {NEIGHBORS} nearest rows"));
        if recall < least {
            error::low_recall(&index, recall, least).raise();
        }
    }
}

/// Has the second column take the first one's place. Tells since when the table is locked for it; nothing is done while much
/// waits, or an index is missing.
fn swap(relation: pg_sys::Oid, target: &str, accepts_failures: bool) -> Option<Instant> {
    let extension = Extension::find();
    let table = owned(relation).or_raise();
    lock(&table);
    let locked = Instant::now();
    let migration = load(relation, target);
    let followers = followers(&migration);
    if is_missing(&followers).is_some() || is_behind(&migration) {
        return None;
    }
    if !accepts_failures {
        refuse_failures(&migration);
    }
    refuse_obstacles(&extension, &migration.old);
    let Migration { old, next } = migration;
    let parents = successor::create_parents(&old, &next, &followers);
    let table = old.table.qualified();
    tables::drop_triggers(&extension, &next);
    // Its triggers, its queue, its log and its indexes go with it.
    spi::run(&format!("ALTER TABLE {table} DROP COLUMN {}", quoted(old.target())), &[]);
    let rename = |what: &str, from: &str, to: &str| {
        spi::run(&format!("ALTER {what} {from} RENAME TO {}", quoted(to)), &[]);
    };
    spi::run(
        &format!("ALTER TABLE {table} RENAME COLUMN {} TO {}", quoted(next.target()), quoted(old.target())),
        &[],
    );
    for follower in &followers {
        rename("INDEX", &qualified(&follower.table.schema, &follower.name), &follower.old_name);
    }
    for (schema, name, old_name) in &parents {
        rename("INDEX", &qualified(schema, name), old_name);
    }
    let mut definition = next.definition.clone();
    // Its own schema's, which may be another one than that of the old column's tables.
    for (relation, old_name) in
        [(&mut definition.queue, &old.definition.queue), (&mut definition.log, &old.definition.log)]
    {
        if relation.0 == old_name.0 {
            rename("TABLE", &qualified(&relation.0, &relation.1), &old_name.1);
            relation.1.clone_from(&old_name.1);
        }
    }
    definition.succeeds = None;
    let number = successor::number(&next);
    definition.columns.remove(&next.definition.target);
    definition.columns.remove(&old.definition.target);
    // A column that had this name when the source was read keeps it there; numbers distinguish them.
    definition.target =
        if definition.columns.contains_key(target) { next.definition.target } else { target.to_owned() };
    definition.columns.insert(definition.target.clone(), number);
    let table = owned(relation).or_raise();
    tables::create_triggers(&extension, &table, &definition);
    tables::tie_anew(&extension, &Column::new(table, definition));
    Some(locked)
}

/// Whether rows wait that should be embedded first.
fn is_behind(migration: &Migration) -> bool {
    let next = &migration.next;
    security::as_owner(next.table.owner, || {
        let sql = format!(
            "SELECT EXISTS (SELECT FROM {} OFFSET {MOST_WAITING}) OR EXISTS (SELECT FROM {} WHERE kind = 'backfill')",
            next.queue(),
            next.log()
        );
        spi::first(&sql, &[], |row| row.is_true(1)).unwrap_or(false)
    })
}

fn abandon(procedure: &spi::Procedure, relation: pg_sys::Oid, target: &str) {
    let migration = spi::with_snapshot(|| load(relation, target));
    let title = migration.old.title();
    patiently(procedure, &title, || {
        let table = owned(relation).or_raise();
        lock(&table);
        let migration = load(relation, target);
        let next = quoted(migration.next.target());
        spi::run(&format!("ALTER TABLE {} DROP COLUMN {next}", table.qualified()), &[]);
    });
    tell(format!("{title} keeps model \"{}\"", migration.old.definition.model));
}
