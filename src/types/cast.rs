//! Casts between imgvec, its typmods and arrays of numbers.

use super::datum::{NewVector, Numbers, Vector};
use super::io::check_typmod;
use crate::error::OrRaise;
use crate::error::{Code, Report, vector};
use imgvec_vector::Dim;
use pgrx::datum::UnboxDatum;
use pgrx::prelude::*;

#[pg_extern(immutable, parallel_safe)]
fn imgvec_to_imgvec(value: Vector<'_>, typmod: i32, _explicit: bool) -> NewVector {
    check_typmod(value.dim(), typmod);
    NewVector::from_slice(value.elements())
}

/// An array as a vector. Checks shape, nulls and length, in pgvector's order, before it looks at an element.
fn from_array<'a, T>(
    array: &'a Numbers<'a, T>,
    typmod: i32,
    to_f32: impl Fn(T::As<'a>) -> Option<f32>,
) -> NewVector
where
    T: UnboxDatum + 'a,
{
    array.require_flat();
    if array.contains_nulls()
        && let Some(index) = array.iter().position(|element| element.is_none())
    {
        Report::new(Code::ERRCODE_NULL_VALUE_NOT_ALLOWED, "array must not contain nulls")
            .detail(format!("Element {} is null.", index + 1))
            .hint("Remove the null, or replace it with a number.")
            .raise();
    }
    Dim::new(array.len()).or_raise();
    check_typmod(array.len(), typmod);
    let mut value = NewVector::zeroed(array.len());
    for (index, (out, element)) in value.elements_mut().iter_mut().zip(array.iter()).enumerate() {
        let element = element.expect("looked for nulls before");
        *out = match to_f32(element) {
            Some(element) if element.is_finite() => element,
            Some(_) => vector::not_finite(index).raise(),
            None => vector::out_of_range(index).raise(),
        };
    }
    value
}

/// A finite f64 that f32 cannot hold is `None`; NaN and infinity pass through, to be named as such.
fn narrow(element: f64) -> Option<f32> {
    let narrowed = element as f32;
    (narrowed.is_finite() || !element.is_finite()).then_some(narrowed)
}

#[pg_extern(immutable, parallel_safe)]
fn int4_array_to_imgvec(array: Numbers<'_, i32>, typmod: i32, _explicit: bool) -> NewVector {
    from_array(&array, typmod, |element| Some(element as f32))
}

#[pg_extern(immutable, parallel_safe)]
fn float4_array_to_imgvec(array: Numbers<'_, f32>, typmod: i32, _explicit: bool) -> NewVector {
    from_array(&array, typmod, Some)
}

#[pg_extern(immutable, parallel_safe)]
fn float8_array_to_imgvec(array: Numbers<'_, f64>, typmod: i32, _explicit: bool) -> NewVector {
    from_array(&array, typmod, narrow)
}

#[pg_extern(immutable, parallel_safe)]
fn imgvec_to_float4_array(value: Vector<'_>, _typmod: i32, _explicit: bool) -> Vec<f32> {
    value.elements().to_vec()
}

#[pg_extern(immutable, parallel_safe)]
fn imgvec_to_float8_array(value: Vector<'_>, _typmod: i32, _explicit: bool) -> Vec<f64> {
    value.elements().iter().copied().map(f64::from).collect()
}
