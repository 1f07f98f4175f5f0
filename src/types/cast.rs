//! Casts between the types of vectors, their typmods and arrays of numbers.

use super::datum::{Element, NewVector, Numbers, Vector};
use super::io::check_typmod;
use crate::error::OrRaise;
use crate::error::{Code, Report, vector};
use half::f16;
use half::slice::HalfFloatSliceExt as _;
use imgvec_vector::Dim;
use pgrx::datum::UnboxDatum;
use pgrx::prelude::*;

fn checked<T: Element>(value: &Vector<'_, T>, typmod: i32) -> NewVector<T> {
    check_typmod(value.dim(), typmod);
    NewVector::from_slice(value.elements())
}

/// An array as a vector. Checks shape, nulls and length, in pgvector's order, before it looks at an element.
fn from_array<'a, N, T: Element>(
    array: &'a Numbers<'a, N>,
    typmod: i32,
    to_f32: impl Fn(N::As<'a>) -> Option<f32>,
) -> NewVector<T>
where
    N: UnboxDatum + 'a,
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
    let mut value = NewVector::<T>::zeroed(array.len());
    for (index, (out, element)) in value.elements_mut().iter_mut().zip(array.iter()).enumerate() {
        let Some(single) = to_f32(element.expect("looked for nulls before")) else {
            T::WORDS.out_of_range(index).raise();
        };
        *out = T::from_f32(single);
        if !out.is_finite() {
            let words = T::WORDS;
            if single.is_finite() { words.out_of_range(index) } else { words.not_finite(index) }.raise();
        }
    }
    value
}

/// A finite f64 that f32 cannot hold is `None`; NaN and infinity pass through, to be named as such.
fn narrow(element: f64) -> Option<f32> {
    let narrowed = element as f32;
    (narrowed.is_finite() || !element.is_finite()).then_some(narrowed)
}

macro_rules! casts_of_type {
    ($element:ident, $to_itself:ident, $from_int4:ident, $from_float4:ident, $from_float8:ident, $to_float4:ident, $to_float8:ident) => {
        #[pg_extern(immutable, parallel_safe)]
        fn $to_itself(value: Vector<'_, $element>, typmod: i32, _explicit: bool) -> NewVector<$element> {
            checked(&value, typmod)
        }

        #[pg_extern(immutable, parallel_safe)]
        fn $from_int4(array: Numbers<'_, i32>, typmod: i32, _explicit: bool) -> NewVector<$element> {
            from_array(&array, typmod, |element| Some(element as f32))
        }

        #[pg_extern(immutable, parallel_safe)]
        fn $from_float4(array: Numbers<'_, f32>, typmod: i32, _explicit: bool) -> NewVector<$element> {
            from_array(&array, typmod, Some)
        }

        #[pg_extern(immutable, parallel_safe)]
        fn $from_float8(array: Numbers<'_, f64>, typmod: i32, _explicit: bool) -> NewVector<$element> {
            from_array(&array, typmod, narrow)
        }

        #[pg_extern(immutable, parallel_safe)]
        fn $to_float4(value: Vector<'_, $element>, _typmod: i32, _explicit: bool) -> Vec<f32> {
            value.widen().into_owned()
        }

        #[pg_extern(immutable, parallel_safe)]
        fn $to_float8(value: Vector<'_, $element>, _typmod: i32, _explicit: bool) -> Vec<f64> {
            value.widen().iter().copied().map(f64::from).collect()
        }
    };
}

casts_of_type!(
    f32,
    imgvec_to_imgvec,
    int4_array_to_imgvec,
    float4_array_to_imgvec,
    float8_array_to_imgvec,
    imgvec_to_float4_array,
    imgvec_to_float8_array
);
casts_of_type!(
    f16,
    imghalf_to_imghalf,
    int4_array_to_imghalf,
    float4_array_to_imghalf,
    float8_array_to_imghalf,
    imghalf_to_float4_array,
    imghalf_to_float8_array
);

/// To imghalf, and to pgvector's halfvec. Rounds to the nearest half-precision number, ties to even. What is beyond
/// 65,504 is an error, as it is in pgvector's own cast.
#[pg_extern(immutable, parallel_safe)]
fn imgvec_to_halfvec(value: Vector<'_>, typmod: i32, _explicit: bool) -> NewVector<f16> {
    check_typmod(value.dim(), typmod);
    let mut half = NewVector::<f16>::zeroed(value.dim());
    half.elements_mut().convert_from_f32_slice(value.elements());
    if let Some(index) = half.elements_mut().iter().position(|element| !element.is_finite()) {
        vector::out_of_half_range(index, value.elements()[index]).raise();
    }
    half
}

/// From imghalf, and from pgvector's halfvec. Exact: every half-precision number is a single-precision one.
#[pg_extern(immutable, parallel_safe)]
fn halfvec_to_imgvec(value: Vector<'_, f16>, typmod: i32, _explicit: bool) -> NewVector {
    check_typmod(value.dim(), typmod);
    let mut single = NewVector::zeroed(value.dim());
    value.elements().convert_to_f32_slice(single.elements_mut());
    single
}
