//! Casts between imgvec and pgvector's half-precision type, for the extension imgvec_pgvector.

use super::datum::{NewVector, Vector};
use super::io::check_typmod;
use crate::error::vector;
use half::f16;
use half::slice::HalfFloatSliceExt as _;
use pgrx::prelude::*;

/// Rounds to the nearest half-precision number, ties to even. What is beyond 65,504 is an error, as it is in
/// pgvector's own cast.
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

/// Exact: every half-precision number is a single-precision one.
#[pg_extern(immutable, parallel_safe)]
fn halfvec_to_imgvec(value: Vector<'_, f16>, typmod: i32, _explicit: bool) -> NewVector {
    check_typmod(value.elements().len(), typmod);
    let mut single = NewVector::zeroed(value.elements().len());
    value.elements().convert_to_f32_slice(single.elements_mut());
    single
}
