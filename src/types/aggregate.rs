//! `sum` and `avg`. The state is a `double precision[]`: the count of rows, then the sum of each
//! element, so that parallel workers can exchange it.

use super::datum::{NewVector, Vector};
use crate::error::vector::different_dims;
use crate::error::{Code, Report};
use imgvec_vector::arithmetic::RangeError;
use pgrx::Array;
use pgrx::prelude::*;

/// A state as a plain slice, checked.
fn state<'a>(array: &'a Array<'_, f64>) -> &'a [f64] {
    match array.as_slice() {
        Ok(state @ [count, ..]) if *count >= 0.0 => state,
        _ => Report::new(Code::ERRCODE_INVALID_PARAMETER_VALUE, "invalid state of an imgvec aggregate")
            .detail("The state is the number of rows followed by the sums of the elements.")
            .hint("Call sum or avg rather than their parts.")
            .raise(),
    }
}

#[pg_extern(immutable, parallel_safe)]
fn imgvec_accum(sums: Array<'_, f64>, value: Vector<'_>) -> Vec<f64> {
    let mut sums = state(&sums).to_vec();
    if sums.len() == 1 {
        sums.resize(1 + value.dim(), 0.0);
    }
    if sums.len() - 1 != value.dim() {
        different_dims(sums.len() - 1, value.dim()).raise();
    }
    sums[0] += 1.0;
    for (sum, &element) in sums[1..].iter_mut().zip(value.elements()) {
        *sum += f64::from(element);
    }
    sums
}

#[pg_extern(immutable, parallel_safe)]
fn imgvec_combine(a: Array<'_, f64>, b: Array<'_, f64>) -> Vec<f64> {
    let (a, b) = (state(&a), state(&b));
    match (a.len(), b.len()) {
        (_, 1) => a.to_vec(),
        (1, _) => b.to_vec(),
        (left, right) if left == right => a.iter().zip(b).map(|(a, b)| a + b).collect(),
        (left, right) => different_dims(left - 1, right - 1).raise(),
    }
}

fn finish(sums: &Array<'_, f64>, scale: impl Fn(f64, f64) -> f64) -> Option<NewVector> {
    let (&count, sums) = state(sums).split_first().expect("a state has a count");
    if count == 0.0 || sums.is_empty() {
        return None;
    }
    let mut value = NewVector::zeroed(sums.len());
    for (out, &sum) in value.elements_mut().iter_mut().zip(sums) {
        *out = scale(sum, count) as f32;
        if !out.is_finite() {
            Report::from(RangeError::Overflow).raise();
        }
    }
    Some(value)
}

#[pg_extern(immutable, parallel_safe)]
fn imgvec_avg(sums: Array<'_, f64>) -> Option<NewVector> {
    finish(&sums, |sum, count| sum / count)
}

#[pg_extern(immutable, parallel_safe)]
fn imgvec_sum(sums: Array<'_, f64>) -> Option<NewVector> {
    finish(&sums, |sum, _| sum)
}
