//! `embed_text_for`, `embed_image_for`: by the model of a maintained column, so that an application names it nowhere.

use super::column::{Column, Extension};
use super::definition::Definition;
use crate::embed;
use crate::error::pipeline as error;
use crate::server::{catalog, raw, security, spi};
use crate::types::datum::{Bytea, NewVector, Text};
use pgrx::prelude::*;
use std::cell::RefCell;
use std::collections::HashMap;

/// Triggers of a table then, each with its argument, and the model of a column of it.
type Answer = (Vec<(pg_sys::Oid, String)>, Option<String>);

/// Columns whose answers a session keeps.
const KEPT: usize = 256;

thread_local! {
    /// By table and number of the column: a query may ask for each of its rows.
    static KNOWN: RefCell<HashMap<(pg_sys::Oid, i16), Answer>> = RefCell::default();
}

/// The model of a column, if it is maintained; `enqueue` is the function of our triggers. The table is locked by whoever
/// searches it, so its triggers belong to the columns that the query reads: a snapshot may be older than both.
///
/// Whoever may create triggers on the table may write any model there, so only a declaration that counts is believed; see
/// `proof.rs`. That is found out once: as long as the triggers are the same, so is what they declare.
pub fn model_of_column(relation: pg_sys::Oid, column: i16, enqueue: pg_sys::Oid) -> Option<String> {
    let triggers = catalog::trigger_arguments(relation, enqueue);
    if triggers.is_empty() {
        return None;
    }
    let place = (relation, column);
    let known = KNOWN.with_borrow(|known| {
        known.get(&place).filter(|known| known.0 == triggers).map(|known| known.1.clone())
    });
    known.unwrap_or_else(|| {
        let arguments = triggers.iter().map(|trigger| trigger.1.as_str());
        let model = proven(relation, column, arguments);
        KNOWN.with_borrow_mut(|known| {
            if known.len() >= KEPT {
                known.clear();
            }
            known.insert(place, (triggers, model.clone()));
        });
        model
    })
}

/// A model by which it is decided which declarations of a column count.
fn proven<'a>(
    relation: pg_sys::Oid,
    column: i16,
    arguments: impl Iterator<Item = &'a str>,
) -> Option<String> {
    let mut declared = arguments
        .filter_map(|argument| Some((argument, Definition::from_json(argument)?)))
        .filter(|(_, it)| it.number_in(relation, &it.target) == Some(column))
        .peekable();
    declared.peek()?;
    security::pinned(|| {
        spi::by_catalogs(|| {
            let extension = Extension::try_find()?;
            let counts = |argument: &str, definition: &Definition| {
                // A partition's triggers are those of the table that was declared.
                let root = pg_sys::Oid::from(definition.relation);
                let of = if raw::is_partition_of(relation, root) { root } else { relation };
                Column::all(&extension, Some(of)).iter().any(|column| column.argument == argument)
            };
            declared.find(|(argument, it)| counts(argument, it)).map(|(_, definition)| definition.model)
        })
    })
}

/// The model of a maintained column.
fn model_of(relation: pg_sys::Oid, target: &str, call: pg_sys::FunctionCallInfo) -> String {
    // SAFETY: the call's own data.
    let function = unsafe { (*(*call).flinfo).fn_oid };
    let enqueue = catalog::function_beside(function, "imgvec_enqueue").unwrap_or(pg_sys::InvalidOid);
    let model = catalog::column_number(relation, target)
        .and_then(|column| model_of_column(relation, column, enqueue));
    model.unwrap_or_else(|| error::not_maintained(&catalog::name_of(relation), Some(target)).raise())
}

#[pg_extern]
fn embed_text_for(
    relation: pg_sys::Oid,
    target: Text<'_>,
    query: Text<'_>,
    call: pg_sys::FunctionCallInfo,
) -> NewVector {
    NewVector::from_slice(&embed::text_embedding(&query, &model_of(relation, target.as_str(), call)))
}

#[pg_extern]
fn embed_image_for(
    relation: pg_sys::Oid,
    target: Text<'_>,
    image: Bytea<'_>,
    call: pg_sys::FunctionCallInfo,
) -> NewVector {
    NewVector::from_slice(&embed::image_embedding(&image, &model_of(relation, target.as_str(), call)))
}
