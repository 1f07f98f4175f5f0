//! Element-wise operators, concatenation, slices and bits.

use super::datum::{NewBits, NewVector, Vector};
use super::distance::same_dims;
use crate::error::{OrRaise, vector};
use imgvec_vector::arithmetic::{self, RangeError};
use pgrx::prelude::*;

/// Two vectors of one length into a third.
type Operation = fn(&[f32], &[f32], &mut [f32]) -> Result<(), RangeError>;

fn elementwise(a: &Vector<'_>, b: &Vector<'_>, operation: Operation) -> NewVector {
    let (a, b) = same_dims(a, b);
    let mut out = NewVector::zeroed(a.len());
    operation(a, b, out.elements_mut()).or_raise();
    out
}

#[pg_extern(immutable, parallel_safe)]
fn imgvec_add(a: Vector<'_>, b: Vector<'_>) -> NewVector {
    elementwise(&a, &b, arithmetic::add)
}

#[pg_extern(immutable, parallel_safe)]
fn imgvec_sub(a: Vector<'_>, b: Vector<'_>) -> NewVector {
    elementwise(&a, &b, arithmetic::subtract)
}

#[pg_extern(immutable, parallel_safe)]
fn imgvec_mul(a: Vector<'_>, b: Vector<'_>) -> NewVector {
    elementwise(&a, &b, arithmetic::multiply)
}

#[pg_extern(immutable, parallel_safe)]
fn imgvec_mul_scalar(a: Vector<'_>, factor: f64) -> NewVector {
    if !factor.is_finite() {
        vector::factor_not_finite(factor).raise();
    }
    let mut out = NewVector::zeroed(a.dim());
    arithmetic::scale(a.elements(), factor, out.elements_mut()).or_raise();
    out
}

#[pg_extern(immutable, parallel_safe)]
fn imgvec_scalar_mul(factor: f64, a: Vector<'_>) -> NewVector {
    imgvec_mul_scalar(a, factor)
}

#[pg_extern(immutable, parallel_safe)]
fn imgvec_concat(a: Vector<'_>, b: Vector<'_>) -> NewVector {
    let mut out = NewVector::zeroed(a.dim() + b.dim());
    let (front, back) = out.elements_mut().split_at_mut(a.dim());
    front.copy_from_slice(a.elements());
    back.copy_from_slice(b.elements());
    out
}

/// `count` elements from the 1-based `start` on, as `substr` has it: positions outside are left out.
#[pg_extern(immutable, parallel_safe)]
fn imgvec_subvector(vector: Vector<'_>, start: i32, count: i32) -> NewVector {
    let dim = i64::try_from(vector.dim()).expect("16,000 at most");
    let first = i64::from(start).max(1);
    let end = (i64::from(start) + i64::from(count)).min(dim + 1);
    let range = usize::try_from(first - 1).unwrap_or(0)..usize::try_from(end - 1).unwrap_or(0);
    NewVector::from_slice(vector.elements().get(range).unwrap_or(&[]))
}

/// One bit an element: 1 where it is greater than zero.
#[pg_extern(immutable, parallel_safe)]
fn imgvec_binary_quantize(vector: Vector<'_>) -> NewBits {
    NewBits(vector.elements().iter().map(|&element| element > 0.0).collect())
}
