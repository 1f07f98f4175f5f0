//! `embed_text_for`, `embed_image_for`: by the model of a maintained column, so that an application names it nowhere.

use super::column::{Column, Extension};
use crate::embed;
use crate::error::pipeline as error;
use crate::server::{catalog, security};
use crate::types::datum::{Bytea, NewVector, Text};
use pgrx::prelude::*;
use std::cell::RefCell;

/// A table, a column of it, the statement that asked, and the column's model.
type Answer = (pg_sys::Oid, String, i64, String);

thread_local! {
    /// The last answer: a query may ask for each of its rows.
    static LAST: RefCell<Option<Answer>> = const { RefCell::new(None) };
}

/// The model of a maintained column.
fn model_of(relation: pg_sys::Oid, target: &str) -> String {
    // SAFETY: a plain read of the server's transaction state.
    let statement = unsafe { pg_sys::GetCurrentStatementStartTimestamp() };
    let known = LAST.with_borrow(|last| {
        last.as_ref()
            .filter(|last| last.0 == relation && last.1 == target && last.2 == statement)
            .map(|last| last.3.clone())
    });
    known.unwrap_or_else(|| {
        let columns = security::pinned(|| Column::all(&Extension::find(), Some(relation)));
        let column = columns.into_iter().find(|column| column.target() == target);
        let Some(column) = column else {
            error::not_maintained(&catalog::name_of(relation), Some(target)).raise()
        };
        let model = column.definition.model;
        LAST.set(Some((relation, target.to_owned(), statement, model.clone())));
        model
    })
}

#[pg_extern]
fn embed_text_for(relation: pg_sys::Oid, target: Text<'_>, query: Text<'_>) -> NewVector {
    NewVector::from_slice(&embed::text_embedding(&query, &model_of(relation, target.as_str())))
}

#[pg_extern]
fn embed_image_for(relation: pg_sys::Oid, target: Text<'_>, image: Bytea<'_>) -> NewVector {
    NewVector::from_slice(&embed::image_embedding(&image, &model_of(relation, target.as_str())))
}
