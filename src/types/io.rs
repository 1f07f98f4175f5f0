//! Text and binary input and output, and the type modifier.

use super::datum::{Element, NewVector, Vector, push_shortest_decimal, take_message, typmods};
use crate::error::vector::{self, Words};
use crate::error::{OrRaise, Report};
use half::f16;
use imgvec_vector::{Dim, DimError, MAX_DIM, text, wire};
use pgrx::prelude::*;
use pgrx::{Array, Internal};
use std::ffi::{CStr, CString};

/// Raises an error unless a vector of `dim` elements fits a type with modifier `typmod`; -1 is a type without one.
pub fn check_typmod(dim: usize, typmod: i32) {
    fits_typmod(dim, typmod).or_raise();
}

fn fits_typmod(dim: usize, typmod: i32) -> Result<(), Report> {
    if typmod != -1 && usize::try_from(typmod) != Ok(dim) {
        return Err(vector::unexpected_dims(typmod, dim));
    }
    Ok(())
}

fn parse<T: Element>(literal: &[u8], typmod: i32) -> Result<Vec<T>, Report> {
    let elements = text::parse(literal).map_err(|error| T::WORDS.bad_text(error, literal))?;
    fits_typmod(elements.len(), typmod)?;
    Ok(elements)
}

/// Text that is no vector is an error, or only noted where the caller asked for that, as `pg_input_is_valid` and
/// `COPY ... (ON_ERROR ignore)` do.
fn read<T: Element>(literal: &CStr, typmod: i32, call: pg_sys::FunctionCallInfo) -> Option<NewVector<T>> {
    match parse(literal.to_bytes(), typmod) {
        Ok(elements) => Some(NewVector::from_slice(&elements)),
        Err(report) => {
            // SAFETY: valid during the call.
            unsafe { report.save_or_raise((*call).context) };
            None
        }
    }
}

fn write<T: Element>(vector: &Vector<'_, T>) -> CString {
    let mut out = Vec::with_capacity(vector.dim() * 12);
    text::format(vector.elements(), &mut out, push_shortest_decimal);
    CString::new(out).expect("digits and brackets")
}

fn receive<T: Element>(message: Internal, typmod: i32) -> NewVector<T> {
    let elements =
        wire::decode(&take_message(message)).map_err(|error| T::WORDS.bad_message(error)).or_raise();
    check_typmod(elements.len(), typmod);
    NewVector::from_slice(&elements)
}

fn send<T: Element>(vector: &Vector<'_, T>) -> Vec<u8> {
    let mut message = Vec::new();
    wire::encode(vector.elements(), &mut message);
    message
}

fn typmod_of(words: Words, modifiers: Array<'_, &CStr>) -> i32 {
    // The server reads the numbers, with its own errors for what is none.
    let modifiers = typmods(modifiers);
    let [modifier] = modifiers.as_slice() else { words.bad_typmod("invalid type modifier").raise() };
    let name = words.name;
    match usize::try_from(*modifier).map_or(Err(DimError::Empty), Dim::new) {
        Ok(dim) => i32::from(dim.to_u16()),
        Err(DimError::Empty) => {
            words.bad_typmod(&format!("dimensions for type {name} must be at least 1")).raise()
        }
        Err(DimError::TooMany) => {
            words.bad_typmod(&format!("dimensions for type {name} cannot exceed {MAX_DIM}")).raise()
        }
    }
}

macro_rules! functions_of_type {
    ($element:ident, $read:ident, $write:ident, $receive:ident, $send:ident, $typmod:ident) => {
        #[pg_extern]
        fn $read(
            literal: &CStr,
            _type_oid: pg_sys::Oid,
            typmod: i32,
            call: pg_sys::FunctionCallInfo,
        ) -> Option<NewVector<$element>> {
            read(literal, typmod, call)
        }

        #[pg_extern]
        fn $write(vector: Vector<'_, $element>) -> CString {
            write(&vector)
        }

        #[pg_extern]
        fn $receive(message: Internal, _type_oid: pg_sys::Oid, typmod: i32) -> NewVector<$element> {
            receive(message, typmod)
        }

        #[pg_extern]
        fn $send(vector: Vector<'_, $element>) -> Vec<u8> {
            send(&vector)
        }

        #[pg_extern]
        fn $typmod(modifiers: Array<'_, &CStr>) -> i32 {
            typmod_of($element::WORDS, modifiers)
        }
    };
}

functions_of_type!(f32, imgvec_in, imgvec_out, imgvec_recv, imgvec_send, imgvec_typmod_in);
functions_of_type!(f16, imghalf_in, imghalf_out, imghalf_recv, imghalf_send, imghalf_typmod_in);
