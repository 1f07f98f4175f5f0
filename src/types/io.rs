//! Text and binary input and output, and the type modifier.

use super::datum::{NewVector, Vector, push_shortest_decimal, take_message};
use crate::error::{OrRaise, vector};
use imgvec_vector::{Dim, DimError, MAX_DIM, text, wire};
use pgrx::prelude::*;
use pgrx::{Array, Internal};
use std::ffi::{CStr, CString};

/// Raises an error unless a vector of `dim` elements fits type `imgvec(typmod)`; -1 is plain `imgvec`.
pub fn check_typmod(dim: usize, typmod: i32) {
    if typmod != -1 && usize::try_from(typmod) != Ok(dim) {
        vector::unexpected_dims(typmod, dim).raise();
    }
}

#[pg_extern]
fn imgvec_in(literal: &CStr, _type_oid: pg_sys::Oid, typmod: i32) -> NewVector {
    let literal = literal.to_bytes();
    let elements = text::parse(literal).map_err(|error| vector::bad_text(error, literal)).or_raise();
    check_typmod(elements.len(), typmod);
    NewVector::from_slice(&elements)
}

#[pg_extern]
fn imgvec_out(vector: Vector<'_>) -> CString {
    let mut out = Vec::with_capacity(vector.dim() * 12);
    text::format(vector.elements(), &mut out, push_shortest_decimal);
    CString::new(out).expect("digits and brackets")
}

#[pg_extern]
fn imgvec_recv(message: Internal, _type_oid: pg_sys::Oid, typmod: i32) -> NewVector {
    let elements = wire::decode(&take_message(message)).or_raise();
    check_typmod(elements.len(), typmod);
    NewVector::from_slice(&elements)
}

#[pg_extern]
fn imgvec_send(vector: Vector<'_>) -> Vec<u8> {
    let mut message = Vec::new();
    wire::encode(vector.elements(), &mut message);
    message
}

#[pg_extern]
fn imgvec_typmod_in(modifiers: Array<'_, &CStr>) -> i32 {
    let mut modifiers = modifiers.iter().flatten();
    let (Some(modifier), None) = (modifiers.next(), modifiers.next()) else {
        vector::bad_typmod("invalid type modifier").raise()
    };
    let dim = modifier.to_str().ok().and_then(|text| text.trim().parse::<usize>().ok());
    match dim.map(Dim::new) {
        Some(Ok(dim)) => i32::from(dim.to_u16()),
        Some(Err(DimError::Empty)) => {
            vector::bad_typmod("dimensions for type imgvec must be at least 1").raise()
        }
        Some(Err(DimError::TooMany)) => {
            vector::bad_typmod(&format!("dimensions for type imgvec cannot exceed {MAX_DIM}")).raise()
        }
        None => vector::bad_typmod("invalid type modifier").raise(),
    }
}
