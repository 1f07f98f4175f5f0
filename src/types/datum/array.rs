//! Arrays of numbers that come in.

use super::metadata::{ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin};
use crate::error::{Code, Report};
use pgrx::Array;
use pgrx::callconv::{Arg, ArgAbi};
use pgrx::datum::{FromDatum, UnboxDatum};
use pgrx::pg_sys;
use std::ffi::CStr;
use std::ops::Deref;

/// An array argument of any number of dimensions. As a slice or an iterator it has its elements in storage order, as if
/// it were one-dimensional: whoever takes it for a vector asks for [`Numbers::require_flat`] first.
pub struct Numbers<'a, T> {
    array: Array<'a, T>,
    dimensions: i32,
}

impl<T: UnboxDatum> Numbers<'_, T> {
    /// Dimensions of the array, 0 if it is empty.
    pub fn dimensions(&self) -> i32 {
        self.dimensions
    }

    /// Raises an error for an array of arrays, whose rows would run into one another.
    pub fn require_flat(&self) {
        if self.dimensions > 1 {
            Report::new(Code::ERRCODE_DATA_EXCEPTION, "array must be 1-D")
                .detail(format!("It has {} dimensions.", self.dimensions))
                .hint("A vector is one array of numbers. Convert each row of the array separately.")
                .raise();
        }
    }
}

impl<'a, T> Deref for Numbers<'a, T> {
    type Target = Array<'a, T>;

    fn deref(&self) -> &Array<'a, T> {
        &self.array
    }
}

impl<T: UnboxDatum> FromDatum for Numbers<'_, T> {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, oid: pg_sys::Oid) -> Option<Self> {
        if is_null {
            return None;
        }
        // SAFETY: the caller vouches for an array. Detoasted once here; a copy lives in the memory context of the call.
        unsafe {
            let detoasted = pg_sys::pg_detoast_datum(datum.cast_mut_ptr());
            let dimensions = (*detoasted.cast::<pg_sys::ArrayType>()).ndim;
            let array = Array::from_polymorphic_datum(pg_sys::Datum::from(detoasted), false, oid)?;
            Some(Self { array, dimensions })
        }
    }
}

// SAFETY: the argument is an array of such elements, by the SQL declaration.
unsafe impl<'fcx, T: UnboxDatum> ArgAbi<'fcx> for Numbers<'fcx, T> {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: as above; STRICT functions get no NULL.
        unsafe { arg.unbox_arg_using_from_datum() }.expect("a strict function gets no NULL")
    }
}

// SAFETY: only names are declared; ArgAbi above does the conversion.
unsafe impl<T: SqlTranslatable> SqlTranslatable for Numbers<'_, T> {
    const TYPE_IDENT: &'static str = "imgvec::Numbers";
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::literal("real[]"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> =
        Ok(ReturnsRef::One(SqlMappingRef::literal("real[]")));
}

/// Type modifiers as integers. Raises the server's error for one that is no integer.
pub fn typmods(modifiers: Array<'_, &CStr>) -> Vec<i32> {
    let mut count = 0;
    // SAFETY: the argument of a type modifier function is an array of cstring; the answer has `count` numbers.
    unsafe {
        let numbers = pg_sys::ArrayGetIntegerTypmods(modifiers.into_array_type().cast_mut(), &raw mut count);
        std::slice::from_raw_parts(numbers, usize::try_from(count).expect("a count")).to_vec()
    }
}
