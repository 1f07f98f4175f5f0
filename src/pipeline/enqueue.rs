//! The function of the triggers: it queues new and changed rows in the transaction that writes them.
//!
//! It appends keys to the queue and evaluates nothing, so neither the source nor a model can fail a user's statement.

use super::definition::Definition;
use crate::encoding;
use crate::error::pipeline as error;
use crate::server::triggers::{self, Appender, Firing, Values};
use crate::server::{catalog, process, raw};
use pgrx::prelude::*;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CString;
use std::rc::Rc;

/// Definitions that a session keeps by their triggers' oids; beyond that many, it forgets all.
const MOST_KEPT: usize = 1000;

thread_local! {
    static KNOWN: RefCell<HashMap<pg_sys::Oid, (CString, Rc<Definition>)>> = RefCell::default();
    /// The column whose embeddings the statement that runs writes.
    static WRITING: RefCell<Option<Writing>> = const { RefCell::new(None) };
}

/// A statement that writes embeddings.
struct Writing {
    relation: pg_sys::Oid,
    target: String,
    /// Triggers that ran around the statement. Its own are one deeper, and what triggers of users do lies deeper still.
    depth: i32,
}

/// Runs the statement that writes embeddings to a column: that it changes them is no reason to embed again.
pub fn writing_embeddings<T>(relation: pg_sys::Oid, target: &str, work: impl FnOnce() -> T) -> T {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            WRITING.take();
        }
    }
    WRITING.replace(Some(Writing { relation, target: target.to_owned(), depth: triggers::depth() }));
    let _reset = Reset;
    work()
}

/// How a change that fires is related to the statement that writes embeddings.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// The statement itself wrote the column.
    Ours,
    /// A trigger of the user, which that statement fired, wrote the same column.
    Within,
    /// All others.
    Other,
}

impl Origin {
    fn of(firing: &Firing, target: i16) -> Self {
        WRITING.with_borrow(|writing| {
            let Some(writing) = writing else { return Self::Other };
            let is_table = firing.relation() == writing.relation
                || raw::is_partition_of(firing.relation(), writing.relation);
            if !is_table || firing.column(&writing.target, None) != Some(target) {
                Self::Other
            } else if triggers::depth() == writing.depth + 1 {
                Self::Ours
            } else {
                Self::Within
            }
        })
    }
}

/// The information that the server wants of a function in C.
#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn pg_finfo_imgvec_enqueue_wrapper() -> &'static pg_sys::Pg_finfo_record {
    const INFO: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &INFO
}

#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn imgvec_enqueue_wrapper(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the server's own data of the call, which lasts as long as the function.
    let firing = unsafe { Firing::of(call) };
    match firing {
        Some(firing) if firing.is_after_change() => enqueue(&firing),
        _ => error::not_a_trigger_call().raise(),
    }
    // A trigger that fires afterwards answers nothing; NULL must not be marked as such.
    pg_sys::Datum::null()
}

/// The columns of the table that fires.
struct Columns {
    key: Vec<i16>,
    watch: Vec<i16>,
    target: i16,
}

fn enqueue(firing: &Firing) {
    let Some(definition) = definition(firing) else {
        error::damaged_trigger(
            &catalog::name_of(firing.relation()),
            "The trigger's argument is not valid in this version.",
        )
        .raise()
    };
    let Some(columns) = columns(firing, &definition) else {
        // The target is gone, and with it the reason to embed.
        if column(firing, &definition, &definition.target).is_none() {
            return;
        }
        error::damaged_trigger(
            &catalog::name_of(firing.relation()),
            "A column of its key or its source is missing.",
        )
        .raise()
    };
    let mut queue: Option<Appender> = None;
    let types: Vec<(pg_sys::Oid, bool)> = columns.key.iter().map(|&number| firing.type_of(number)).collect();
    // SAFETY: reads the clock.
    let now = pg_sys::Datum::from(unsafe { pg_sys::GetCurrentTimestamp() });
    let last = columns.key.iter().chain(&columns.watch).chain([&columns.target]).max().copied().unwrap_or(1);
    let origin = Origin::of(firing, columns.target);
    firing.rows(last, |old, new| {
        if !is_wanted(firing, &definition, &columns, origin, old, new) {
            return;
        }
        let queue = queue.get_or_insert_with(|| open_queue(firing, &definition, &types));
        let key = columns.key.iter().zip(&types);
        let key =
            key.map(|(&number, &(_, is_varlena))| (new.get(number).expect("a key is NOT NULL"), is_varlena));
        // SAFETY: values of the key's types, which the queue was seen to have.
        unsafe { queue.append(key.chain([(now, false)])) };
    });
    if let Some(queue) = queue {
        queue.finish();
        process::wake_workers_at_commit();
    }
}

/// Whether a row that came or changed has to be embedded.
fn is_wanted(
    firing: &Firing,
    definition: &Definition,
    columns: &Columns,
    origin: Origin,
    old: Option<&Values<'_>>,
    new: &Values<'_>,
) -> bool {
    let Some(old) = old else {
        // Nothing to embed, and nothing there.
        let is_empty = definition.is_column
            && columns.watch.iter().all(|&number| new.get(number).is_none())
            && new.get(columns.target).is_none();
        return !is_empty;
    };
    let has_changed = |&number: &i16| !firing.is_same(number, old, new);
    // Rows whose keys differ may not belong together; then nothing is known.
    let is_target_wanted = match origin {
        Origin::Ours => false,
        // A trigger may finish a new embedding, such as to shorten it, or ask for one. To replace what it finished would
        // make it finish that too, without end.
        Origin::Within => new.get(columns.target).is_none(),
        Origin::Other => true,
    };
    columns.key.iter().any(has_changed)
        || columns.watch.iter().any(has_changed)
        || (is_target_wanted && has_changed(&columns.target))
}

fn definition(firing: &Firing) -> Option<Rc<Definition>> {
    let (trigger, argument) = firing.trigger();
    let argument = argument?;
    KNOWN.with_borrow_mut(|known| {
        if let Some((text, definition)) = known.get(&trigger)
            && text.as_c_str() == argument
        {
            return Some(Rc::clone(definition));
        }
        let definition = Rc::new(Definition::from_json(&encoding::to_utf8_lossy(argument.to_bytes()))?);
        if known.len() >= MOST_KEPT {
            known.clear();
        }
        known.insert(trigger, (argument.to_owned(), Rc::clone(&definition)));
        Some(definition)
    })
}

/// The number that a column of the declaration has in the table that fires.
fn column(firing: &Firing, definition: &Definition, name: &str) -> Option<i16> {
    let declared = pg_sys::Oid::from(definition.relation);
    let known = definition.columns.get(name).copied();
    if firing.relation() == declared {
        return firing.column(name, known);
    }
    // The trigger of a partition has the argument of its root, whose columns may have other numbers and new names.
    if firing.is_clone()
        && raw::is_partition_of(firing.relation(), declared)
        && let Some(now) = known.and_then(|number| catalog::column_name(declared, number))
    {
        return firing.column(&now, None);
    }
    firing.column(name, None)
}

fn columns(firing: &Firing, definition: &Definition) -> Option<Columns> {
    let all = |names: &[String]| -> Option<Vec<i16>> {
        names.iter().map(|name| column(firing, definition, name)).collect()
    };
    Some(Columns {
        key: all(&definition.key)?,
        watch: all(&definition.watch)?,
        target: column(firing, definition, &definition.target)?,
    })
}

/// The queue, by its oid where that counts, or by its name.
fn queue_of(firing: &Firing, definition: &Definition) -> Option<pg_sys::Oid> {
    let (schema, name) = &definition.queue;
    let declared = pg_sys::Oid::from(definition.relation);
    let known = || {
        let queue = pg_sys::Oid::from(definition.tables.0);
        catalog::qualified_name(queue).is_some().then_some(queue)
    };
    if firing.relation() == declared {
        return known().or_else(|| catalog::relation(schema, name));
    }
    catalog::relation(schema, name).or_else(|| {
        let is_ours = firing.is_clone() && raw::is_partition_of(firing.relation(), declared);
        if is_ours { known() } else { None }
    })
}

fn open_queue(firing: &Firing, definition: &Definition, key: &[(pg_sys::Oid, bool)]) -> Appender {
    let damaged = |why: &str| -> ! {
        error::damaged_trigger(&catalog::name_of(firing.relation()), why).raise();
    };
    let (schema, name) = &definition.queue;
    let Some(table) = queue_of(firing, definition) else {
        damaged(&format!("Its queue, table \"{schema}.{name}\", is missing."));
    };
    // Rows go in past all checks of rights. So the queue must be one that the table's owner may fill, or one that was tied
    // to the table when it was declared: nobody fills somebody else's table by way of a trigger that names it.
    // Which table that is, the argument says, so it counts only for that table and for a partition's copy of its trigger.
    let declared = pg_sys::Oid::from(definition.relation);
    let is_declared = firing.relation() == declared
        || (firing.is_clone() && raw::is_partition_of(firing.relation(), declared));
    let is_allowed = catalog::may_insert(firing.owner(), table)
        || (is_declared && catalog::is_part_of_column(table, declared, 0));
    if !is_allowed {
        damaged(&format!("The table's owner may not insert into its queue, \"{schema}.{name}\"."));
    }
    let queue = Appender::open(table);
    let mut types: Vec<pg_sys::Oid> = key.iter().map(|key| key.0).collect();
    types.push(pg_sys::TIMESTAMPTZOID);
    if !queue.has_shape(&types) {
        damaged(&format!(
            "Its queue, \"{schema}.{name}\", has an index, or other columns than the table's key and a time."
        ));
    }
    queue
}
