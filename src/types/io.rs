//! Text and binary input and output, and the type modifier.

use super::datum::{NewVector, Vector, push_shortest_decimal, take_message, typmods};
use crate::error::{OrRaise, Report, vector};
use imgvec_vector::{Dim, DimError, MAX_DIM, text, wire};
use pgrx::prelude::*;
use pgrx::{Array, Internal};
use std::ffi::{CStr, CString};

/// Raises an error unless a vector of `dim` elements fits type `imgvec(typmod)`; -1 is plain `imgvec`.
pub fn check_typmod(dim: usize, typmod: i32) {
    fits_typmod(dim, typmod).or_raise();
}

fn fits_typmod(dim: usize, typmod: i32) -> Result<(), Report> {
    if typmod != -1 && usize::try_from(typmod) != Ok(dim) {
        return Err(vector::unexpected_dims(typmod, dim));
    }
    Ok(())
}

fn parse(literal: &[u8], typmod: i32) -> Result<Vec<f32>, Report> {
    let elements = text::parse(literal).map_err(|error| vector::bad_text(error, literal))?;
    fits_typmod(elements.len(), typmod)?;
    Ok(elements)
}

/// Text that is no vector is an error, or only noted where the caller asked for that, as `pg_input_is_valid` and
/// `COPY ... (ON_ERROR ignore)` do.
#[pg_extern]
fn imgvec_in(
    literal: &CStr,
    _type_oid: pg_sys::Oid,
    typmod: i32,
    call: pg_sys::FunctionCallInfo,
) -> Option<NewVector> {
    match parse(literal.to_bytes(), typmod) {
        Ok(elements) => Some(NewVector::from_slice(&elements)),
        Err(report) => {
            // SAFETY: valid during the call.
            unsafe { report.save_or_raise((*call).context) };
            None
        }
    }
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
    // The server reads the numbers, with its own errors for what is none.
    let modifiers = typmods(modifiers);
    let [modifier] = modifiers.as_slice() else { vector::bad_typmod("invalid type modifier").raise() };
    match usize::try_from(*modifier).map_or(Err(DimError::Empty), Dim::new) {
        Ok(dim) => i32::from(dim.to_u16()),
        Err(DimError::Empty) => vector::bad_typmod("dimensions for type imgvec must be at least 1").raise(),
        Err(DimError::TooMany) => {
            vector::bad_typmod(&format!("dimensions for type imgvec cannot exceed {MAX_DIM}")).raise()
        }
    }
}
