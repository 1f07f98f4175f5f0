//! `embed_text_for`, `embed_image_for`: by the model of a maintained column, so that an application names it nowhere.

use super::definition::Definition;
use crate::embed;
use crate::error::pipeline as error;
use crate::server::catalog;
use crate::types::datum::{Bytea, NewVector, Text};
use pgrx::prelude::*;
use std::cell::RefCell;

/// A table, a number of a column of it, its triggers' arguments then, and the column's model.
type Answer = (pg_sys::Oid, i16, Vec<String>, Option<String>);

thread_local! {
    /// The last answer: a query may ask for each of its rows.
    static LAST: RefCell<Option<Answer>> = const { RefCell::new(None) };
}

/// The model of a column, if it is maintained; `enqueue` is the function of our triggers. The table is locked by whoever
/// searches it, so its triggers belong to the columns that the query reads: a snapshot may be older than both.
pub fn model_of_column(relation: pg_sys::Oid, column: i16, enqueue: pg_sys::Oid) -> Option<String> {
    let arguments = catalog::trigger_arguments(relation, enqueue);
    if arguments.is_empty() {
        return None;
    }
    let known = LAST.with_borrow(|last| {
        last.as_ref()
            .filter(|last| last.0 == relation && last.1 == column && last.2 == arguments)
            .map(|last| last.3.clone())
    });
    known.unwrap_or_else(|| {
        let mut definitions = arguments.iter().filter_map(|argument| Definition::from_json(argument));
        let definition = definitions.find(|it| it.number_in(relation, &it.target) == Some(column));
        let model = definition.map(|definition| definition.model);
        LAST.set(Some((relation, column, arguments, model.clone())));
        model
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
