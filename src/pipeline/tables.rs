//! The tables and triggers of a maintained column: made, tied to the column, and dropped.

use super::column::{Column, Extension, Key, KeyColumn, Table};
use super::definition::{Definition, Kind};
use super::proof;
use super::query::{literal, name, qualified, quoted};
use crate::server::{catalog, security, spi};
use pgrx::pg_sys;

/// Trigger events, with the transition tables that they have where they fire for a statement.
const EVENTS: [(&str, &str); 2] = [
    ("insert", "REFERENCING NEW TABLE AS imgvec_new"),
    ("update", "REFERENCING OLD TABLE AS imgvec_old NEW TABLE AS imgvec_new"),
];

/// A name that no trigger of the table has: a column may have taken another one's name.
fn trigger_name(table: &Table, target: &str, event: &str) -> String {
    let sql = "SELECT FROM pg_trigger WHERE tgrelid = $1 AND tgname = $2::name";
    (1..)
        .map(|number| {
            let ending = if number == 1 { format!("_{event}") } else { format!("_{event}{number}") };
            name(&format!("imgvec_{target}"), &ending)
        })
        .find(|name| spi::first(sql, &[spi::oid(table.oid), spi::text(name)], |_| ()).is_none())
        .expect("numbers do not end")
}

/// A name that no relation of the schema has.
pub fn unused(schema: &str, stem: &str, ending: &str) -> String {
    let sql = "SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = $1::name AND c.relname = $2::name";
    (1..)
        .map(|number| {
            let ending = if number == 1 { ending.to_owned() } else { format!("{ending}{number}") };
            name(stem, &ending)
        })
        .find(|name| spi::first(sql, &[spi::text(schema), spi::text(name)], |_| ()).is_none())
        .expect("numbers do not end")
}

/// Whether triggers fire for each row. A transition table holds whole rows, pictures included, which would go through
/// temporary files; and the triggers of a partitioned table's partitions are made by the server only for rows.
fn fires_for_rows(table: &Table, kind: Kind) -> bool {
    let wide = "SELECT FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped AND atttypid = 'bytea'::regtype";
    kind == Kind::Image
        || table.is_partitioned()
        || table.is_partition
        || spi::first(wide, &[spi::oid(table.oid)], |_| ()).is_some()
}

/// Makes queue, log and triggers. The current user's rights are needed, and everything belongs to the table's owner.
pub fn create(extension: &Extension, table: &Table, key: &Key, mut definition: Definition) -> Column {
    let queue = qualified(&definition.queue.0, &definition.queue.1);
    let log = qualified(&definition.log.0, &definition.log.1);
    let persistence = if table.persistence == b'u' { "UNLOGGED " } else { "" };
    let columns = |constraint: &str| -> String {
        let column = |(place, column): (usize, &KeyColumn)| {
            let collation =
                column.collation.as_ref().map(|name| format!(" COLLATE {name}")).unwrap_or_default();
            format!("k{} {}{collation}{constraint}, ", place + 1, column.type_name)
        };
        key.0.iter().enumerate().map(column).collect()
    };
    // Rows come and go: vacuum by their number, not by a share of a table that is large for an hour.
    let vacuum = "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000";
    spi::run(
        &format!(
            "CREATE {persistence}TABLE {queue} ({}queued_at timestamptz NOT NULL) USING heap WITH ({vacuum})",
            columns(" NOT NULL")
        ),
        &[],
    );
    spi::run(
        &format!(
            "CREATE {persistence}TABLE {log} ({}kind text NOT NULL, at timestamptz NOT NULL, sqlstate text, message text,
             attempts integer, not_before timestamptz, rows bigint, CHECK (kind IN ('backfill', 'batch', 'error', 'failed', 'model', 'retry')))
             USING heap WITH ({vacuum})",
            columns("")
        ),
        &[],
    );
    let classes: Vec<String> =
        key.0.iter().enumerate().map(|(place, column)| format!("k{} {}", place + 1, column.class)).collect();
    spi::run(
        &format!("CREATE UNIQUE INDEX ON {log} ({}) WHERE kind IN ('failed', 'retry')", classes.join(", ")),
        &[],
    );
    let what = format!("{}.{}", table.qualified(), quoted(&definition.target));
    for (relation, comment) in [
        (&queue, format!("rows that wait for their embedding in {what}; created by imgvec_maintain")),
        (&log, format!("failures and progress of embedding {what}; created by imgvec_maintain")),
    ] {
        spi::run(&format!("COMMENT ON TABLE {relation} IS {}", literal(&comment)), &[]);
        spi::run(&format!("REVOKE ALL ON {relation} FROM PUBLIC"), &[]);
        // A publication of all tables asks for it before rows can be deleted.
        spi::run(&format!("ALTER TABLE {relation} REPLICA IDENTITY FULL"), &[]);
        if security::current_user() != table.owner {
            spi::run(&format!("ALTER TABLE {relation} OWNER TO {}", quoted(&table.owner_name)), &[]);
        }
    }
    let oid =
        |(schema, name): &(String, String)| catalog::relation(schema, name).expect("just made").to_u32();
    definition.tables = (oid(&definition.queue), oid(&definition.log));
    create_triggers(extension, table, &definition);
    let column = Column::new(table.clone(), definition);
    tie_anew(extension, &column);
    column
}

/// Makes the triggers of a column that has its queue.
pub fn create_triggers(extension: &Extension, table: &Table, definition: &Definition) {
    for event in EVENTS {
        let name = trigger_name(table, definition.succeeds.as_ref().unwrap_or(&definition.target), event.0);
        create_trigger(extension, table, definition, event, &name);
    }
}

/// Makes a trigger, or replaces the one of that name, which keeps its oid and loses what it is tied to.
fn create_trigger(
    extension: &Extension,
    table: &Table,
    definition: &Definition,
    (event, transition): (&str, &str),
    name: &str,
) {
    let argument = literal(&definition.to_json());
    let function = qualified(&extension.schema, "imgvec_enqueue");
    let rows = fires_for_rows(table, definition.kind);
    let each = if rows { "FOR EACH ROW".to_owned() } else { format!("{transition} FOR EACH STATEMENT") };
    let (name, table) = (quoted(name), table.qualified());
    spi::run(
        &format!(
            "CREATE OR REPLACE TRIGGER {name} AFTER {event} ON {table} {each} EXECUTE FUNCTION {function}({argument})"
        ),
        &[],
    );
}

/// Writes a declaration again that has names of earlier days. Nobody writes to the table meanwhile.
pub fn refresh(extension: &Extension, column: &Column, definition: Definition) {
    let fresh = Column::new(column.table.clone(), definition);
    for trigger in triggers(extension, column, |argument| argument == column.argument) {
        let event = EVENTS[usize::from(!trigger.is_insert)];
        create_trigger(extension, &fresh.table, &fresh.definition, event, &trigger.name);
    }
    tie_anew(extension, &fresh);
}

/// Ties queue, log and triggers to the target, so that they go when it goes, if they are not tied: a dump does not keep it.
pub fn tie(extension: &Extension, column: &Column) {
    let Some(number) = column.table.number(column.target()) else { return };
    let (schema, name) = &column.definition.queue;
    let queue = catalog::relation(schema, name);
    if queue.is_some_and(|queue| !catalog::is_part_of_column(queue, column.table.oid, number)) {
        tie_anew(extension, column);
    }
}

/// Ties triggers that were just made to the target, to the queue, and to the columns that they read: without these the table
/// could not be written to. The queue and the log are tied to the target.
pub fn tie_anew(extension: &Extension, column: &Column) {
    let (Some(number), relation) = (column.table.number(column.target()), column.table.oid) else { return };
    let oid = |(schema, name): &(String, String)| catalog::relation(schema, name);
    let (Some(queue), Some(log)) = (oid(&column.definition.queue), oid(&column.definition.log)) else {
        return;
    };
    let read = column.definition.key.iter().chain(&column.definition.watch);
    let mut read: Vec<i16> = read.filter_map(|name| column.table.number(column.name(name)?)).collect();
    read.sort_unstable();
    read.dedup();
    // Only those that say just this: a tie is the proof of whose declaration it is (`proof.rs`).
    for trigger in triggers(extension, column, |argument| argument == column.argument) {
        let trigger = catalog::Object::Trigger(trigger.oid);
        catalog::make_part_of_column(trigger, relation, number);
        catalog::make_need(trigger, queue, 0);
        read.iter().for_each(|&number| catalog::make_need(trigger, relation, number));
    }
    // After the triggers: whoever changes the target's type meets these first, and has words for them.
    for table in [queue, log] {
        catalog::end_part_of_columns(table, relation);
        catalog::make_part_of_column(catalog::Object::Relation(table), relation, number);
    }
}

/// A trigger of ours.
struct Trigger {
    oid: pg_sys::Oid,
    name: String,
    is_insert: bool,
}

/// Triggers of the column's table whose argument is one of these.
fn triggers(extension: &Extension, column: &Column, is_wanted: impl Fn(&str) -> bool) -> Vec<Trigger> {
    // Insert is 4 in tgtype. Between two arguments is a zero byte, which is no text.
    let sql = "SELECT oid, tgname, tgtype & 4 <> 0,
            convert_from(substring(tgargs FOR length(tgargs) - 1), getdatabaseencoding())
        FROM pg_trigger WHERE tgfoid = $1 AND tgrelid = $2 AND tgparentid = 0 AND tgnargs = 1 AND length(tgargs) > 1";
    let all = spi::rows(sql, &[spi::oid(extension.enqueue), spi::oid(column.table.oid)], |row| {
        let trigger = Trigger { oid: row.oid(1), name: row.string(2), is_insert: row.is_true(3) };
        is_wanted(&row.string(4)).then_some(trigger)
    });
    all.into_iter().flatten().collect()
}

/// Drops the triggers that fill the column's queue, whoever made them.
pub fn drop_triggers(extension: &Extension, column: &Column) {
    let fills = |argument: &str| {
        let other = Column::read(column.table.clone(), argument);
        other.is_some_and(|other| other.definition.queue == column.definition.queue)
    };
    for trigger in triggers(extension, column, fills) {
        spi::run(&format!("DROP TRIGGER {} ON {}", quoted(&trigger.name), column.table.qualified()), &[]);
    }
}

/// Drops triggers, queue and log of a column whose declaration counts.
pub fn drop(extension: &Extension, column: &Column) {
    drop_triggers(extension, column);
    spi::run(&format!("DROP TABLE IF EXISTS {}, {}", column.queue(), column.log()), &[]);
}

/// Drops the triggers of a declaration that does not count. The tables that it names may be anybody's, and are dropped only
/// where they are tied to the column.
pub fn drop_doubtful(extension: &Extension, column: &Column) {
    let [has_queue, has_log] = proof::tied(column);
    if has_queue {
        drop_triggers(extension, column);
    }
    for trigger in triggers(extension, column, |argument| argument == column.argument) {
        spi::run(&format!("DROP TRIGGER {} ON {}", quoted(&trigger.name), column.table.qualified()), &[]);
    }
    for (is_ours, table) in [(has_queue, column.queue()), (has_log, column.log())] {
        if is_ours {
            spi::run(&format!("DROP TABLE IF EXISTS {table}"), &[]);
        }
    }
}
