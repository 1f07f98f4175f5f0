//! Which declarations count.
//!
//! A declaration is the argument of a trigger, and anybody with the right to create triggers on a table can write it. The objects that
//! it names are worked with the rights of the table's owner, and dropped or renamed with those of the caller. So a
//! declaration counts only if the catalogs confirm it:
//!
//! 1. Queue and log are plain tables with the right columns, and belong to the table's owner. Nobody else can create such tables.
//! 2. If `pg_depend` ties an object to a column, it is this target. No SQL command creates such ties of tables and triggers, only
//!    `tables::tie_anew` does.
//! 3. If the queue is tied, the trigger is too. CREATE OR REPLACE TRIGGER, which needs only the right TRIGGER, removes the tie. So
//!    a trigger that somebody else created or replaced proves nothing.
//! 4. A dump contains no ties. Until the first batch has renewed them, no other declaration of the same owner's tables may name the
//!    same queue or log. If two do, neither counts.
//!
//! One gap remains: a role with the right TRIGGER can replace both triggers between a restore and the first batch, and so
//! declare another source. The right TRIGGER lets it run code as the owner anyway, when an embedding is written.

use super::column::{Column, Extension};
use super::definition::Definition;
use crate::error::{Report, pipeline as error};
use crate::server::{catalog, spi};
use pgrx::pg_sys;

/// Columns of the log after the key's, with the oids of their types.
const LOG: &str = "kind 25, at 1184, sqlstate 25, message 25, attempts 23, not_before 1184, rows 20";
const QUEUE: &str = "queued_at 1184";

/// Why a declaration does not count.
pub struct Doubt {
    why: String,
    /// Whether it is for want of a right.
    is_right: bool,
}

impl Doubt {
    fn new(why: String) -> Self {
        Self { why, is_right: false }
    }

    pub fn report(&self, column: &Column) -> Report {
        error::doubtful(&column.title(), &self.why, self.is_right)
    }
}

/// Ties of a table to columns.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ties {
    None,
    /// To the target of the declaration.
    Ours,
}

/// Why a declaration does not count, which `trigger` makes; none if it does.
pub fn doubt(extension: &Extension, column: &Column, trigger: pg_sys::Oid) -> Option<Doubt> {
    prove(extension, column, trigger).err()
}

/// Whether queue and log are sure to be the column's, whatever its triggers say now: its owner's, and tied to it.
pub fn tied(column: &Column) -> [bool; 2] {
    let Column { table, definition, .. } = column;
    [(&definition.queue, QUEUE), (&definition.log, LOG)].map(|(name, rest)| {
        let number = table.number(column.target());
        number.is_some_and(|number| {
            prove_table(column, number, name, rest).is_ok_and(|ties| ties == Ties::Ours)
        })
    })
}

fn prove(extension: &Extension, column: &Column, trigger: pg_sys::Oid) -> Result<(), Doubt> {
    let Some(number) = column.table.number(column.target()) else {
        return Err(Doubt::new("Its target column is gone.".to_owned()));
    };
    let queue = prove_table(column, number, &column.definition.queue, QUEUE)?;
    prove_table(column, number, &column.definition.log, LOG)?;
    if queue == Ties::Ours {
        let sql =
            "SELECT FROM pg_depend WHERE classid = 'pg_trigger'::regclass AND objid = $1 AND deptype = 'a'
            AND refclassid = 'pg_class'::regclass AND refobjid = $2 AND refobjsubid = $3";
        let arguments = [spi::oid(trigger), spi::oid(column.table.oid), spi::integer(i64::from(number))];
        if spi::prepared_first(sql, &arguments, |_| ()).is_none() {
            return Err(Doubt::new("Its trigger was not made by imgvec_maintain.".to_owned()));
        }
    } else if has_rival(extension, column) {
        return Err(Doubt::new("Another declaration names the same queue or log.".to_owned()));
    }
    Ok(())
}

fn prove_table(
    column: &Column,
    number: i16,
    (schema, name): &(String, String),
    rest: &str,
) -> Result<Ties, Doubt> {
    let Some(relation) = catalog::relation(schema, name) else {
        return Err(Doubt::new(format!("Table \"{schema}.{name}\" is missing.")));
    };
    // A key's types are those of the table, or the triggers refuse the queue.
    let sql = "SELECT c.relkind = 'r' AND c.relpersistence <> 't', c.relowner,
            (SELECT string_agg(CASE WHEN a.attname ~ '^k[0-9]+$' THEN a.attname::text ELSE a.attname || ' ' || a.atttypid END, ', ' ORDER BY a.attnum)
             FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
            count(d.objid), count(d.objid) FILTER (WHERE d.refobjid = $2 AND d.refobjsubid = $3)
        FROM pg_class c LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.objsubid = 0
            AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0 AND d.deptype = 'a'
        WHERE c.oid = $1 GROUP BY c.oid, c.relkind, c.relpersistence, c.relowner";
    let arguments = [spi::oid(relation), spi::oid(column.table.oid), spi::integer(i64::from(number))];
    let found = spi::prepared_first(sql, &arguments, |row| {
        (row.is_true(1), row.oid(2), row.string(3), row.integer(4), row.integer(5))
    });
    let Some((is_table, owner, columns, ties, ours)) = found else {
        return Err(Doubt::new(format!("Table \"{schema}.{name}\" is missing.")));
    };
    if owner != column.table.owner {
        let why = format!(
            "Table \"{schema}.{name}\" does not belong to the owner of {}.",
            column.table.qualified()
        );
        return Err(Doubt { why, is_right: true });
    }
    let key: String = (1..=column.definition.key.len()).map(|place| format!("k{place}, ")).collect();
    if !is_table || columns != format!("{key}{rest}") {
        return Err(Doubt::new(format!(
            "\"{schema}.{name}\" does not have the columns that imgvec_maintain creates."
        )));
    }
    match (ties, ours) {
        (0, _) => Ok(Ties::None),
        (ties, ours) if ties == ours => Ok(Ties::Ours),
        _ => Err(Doubt::new(format!("Table \"{schema}.{name}\" belongs to another column."))),
    }
}

/// Whether another declaration of a table of the same owner names the same queue or log. Those of other owners' tables count
/// for nothing, so that nobody stops the work of others by naming their queues.
fn has_rival(extension: &Extension, column: &Column) -> bool {
    let Column { table, definition, argument, .. } = column;
    let is_other = |other: &Column| {
        (other.table.oid != table.oid || other.argument != *argument) && other.table.owner == table.owner
    };
    let meets =
        |other: &Column| other.definition.queue == definition.queue || other.definition.log == definition.log;
    let tables = [&definition.queue, &definition.log].map(|(schema, name)| catalog::relation(schema, name));
    let oids = tables.map(|table| table.map_or(0, pg_sys::Oid::to_u32));
    // Before the catalogs are looked into, most can be told by what they say.
    let may_meet = |other: &Definition| {
        other.queue == definition.queue
            || other.log == definition.log
            || other.tables.0 == oids[0]
            || other.tables.1 == oids[1]
    };
    Column::found(extension, None, may_meet).iter().any(|(other, _)| is_other(other) && meets(other))
}
