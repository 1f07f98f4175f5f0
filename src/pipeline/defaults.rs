//! `embed_text_for`, `embed_image_for`: by the model of a maintained column, so that an application names it nowhere.

use super::definition::Definition;
use crate::embed;
use crate::error::pipeline as error;
use crate::server::catalog;
use crate::types::datum::{Bytea, NewVector, Text};
use pgrx::prelude::*;
use std::cell::RefCell;

/// A table, a column of it, its triggers' arguments then, and the column's model.
type Answer = (pg_sys::Oid, String, Vec<String>, String);

thread_local! {
    /// The last answer: a query may ask for each of its rows.
    static LAST: RefCell<Option<Answer>> = const { RefCell::new(None) };
}

/// The model of a maintained column. The table is locked by whoever searches it, so its triggers belong to the columns that
/// the query reads: a snapshot may be older than both.
fn model_of(relation: pg_sys::Oid, target: &str, call: pg_sys::FunctionCallInfo) -> String {
    // SAFETY: the call's own data.
    let function = unsafe { (*(*call).flinfo).fn_oid };
    let enqueue = catalog::function_beside(function, "imgvec_enqueue").unwrap_or(pg_sys::InvalidOid);
    let arguments = catalog::trigger_arguments(relation, enqueue);
    let known = LAST.with_borrow(|last| {
        last.as_ref()
            .filter(|last| last.0 == relation && last.1 == target && last.2 == arguments)
            .map(|last| last.3.clone())
    });
    known.unwrap_or_else(|| {
        let number = catalog::column_number(relation, target);
        let is_of_target = |definition: &Definition| {
            if definition.relation == relation.to_u32() {
                number.is_some() && definition.columns.get(&definition.target).copied() == number
            } else {
                definition.target == target
            }
        };
        let definition =
            arguments.iter().filter_map(|argument| Definition::from_json(argument)).find(is_of_target);
        let Some(definition) = definition else {
            error::not_maintained(&catalog::name_of(relation), Some(target)).raise()
        };
        let model = definition.model;
        LAST.set(Some((relation, target.to_owned(), arguments, model.clone())));
        model
    })
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
