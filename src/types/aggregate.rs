//! `sum` and `avg`, of both types. The state is a `double precision[]`: the count of rows, then the sum of each
//! element, so that parallel workers can exchange it.

use super::datum::{Element, NewVector, Numbers, Vector};
use crate::error::vector::{IMGVEC, different_dims};
use crate::error::{Code, OrRaise, Report};
use half::f16;
use imgvec_vector::arithmetic::RangeError;
use imgvec_vector::{Dim, MAX_DIM};
use pgrx::prelude::*;

/// A state as a plain slice, checked: one dimension, no nulls, a count, and the sums of a vector or none yet.
fn state<'a>(array: &'a Numbers<'_, f64>) -> &'a [f64] {
    match array.as_slice() {
        Ok(state @ [count, ..]) if *count >= 0.0 && array.dimensions() == 1 => {
            if state.len() > 1 + MAX_DIM {
                Dim::new(state.len() - 1).or_raise();
            }
            state
        }
        _ => Report::new(Code::ERRCODE_INVALID_PARAMETER_VALUE, "invalid state of an imgvec aggregate")
            .detail("The state is the number of rows followed by the sums of the elements.")
            .hint("Call sum or avg rather than their parts.")
            .raise(),
    }
}

fn add<T: Element>(sums: &Numbers<'_, f64>, value: &Vector<'_, T>) -> Vec<f64> {
    let mut sums = state(sums).to_vec();
    sums[0] += 1.0;
    if sums.len() == 1 {
        // Taken over rather than added to zeros: the sum of -0 alone is -0.
        sums.extend(value.widen().iter().copied().map(f64::from));
        return sums;
    }
    if sums.len() - 1 != value.dim() {
        T::WORDS.different_dims(sums.len() - 1, value.dim()).raise();
    }
    for (sum, &element) in sums[1..].iter_mut().zip(value.widen().iter()) {
        *sum += f64::from(element);
    }
    finite(sums)
}

#[pg_extern(immutable, parallel_safe)]
fn imgvec_combine(a: Numbers<'_, f64>, b: Numbers<'_, f64>) -> Vec<f64> {
    let (a, b) = (state(&a), state(&b));
    let mut sums = match (a.len(), b.len()) {
        (_, 1) => a.to_vec(),
        (1, _) => b.to_vec(),
        (left, right) if left == right => a.iter().zip(b).map(|(a, b)| a + b).collect(),
        (left, right) => different_dims(left - 1, right - 1).raise(),
    };
    sums[0] = a[0] + b[0];
    finite(sums)
}

/// The sums, unless they left the range of double precision.
fn finite(sums: Vec<f64>) -> Vec<f64> {
    if !sums.iter().all(|sum| sum.is_finite()) {
        IMGVEC.out_of_scale(RangeError::Overflow).raise();
    }
    sums
}

fn finish<T: Element>(sums: &Numbers<'_, f64>, scale: impl Fn(f64, f64) -> f64) -> Option<NewVector<T>> {
    let (&count, sums) = state(sums).split_first().expect("a state has a count");
    if count == 0.0 {
        return None;
    }
    // Rows were counted, so an empty sum is no state of ours: it is refused as a vector of no elements.
    let mut value = NewVector::<T>::zeroed(sums.len());
    for (out, &sum) in value.elements_mut().iter_mut().zip(sums) {
        *out = T::from_f32(scale(sum, count) as f32);
        if !out.is_finite() {
            T::WORDS.out_of_scale(RangeError::Overflow).raise();
        }
    }
    Some(value)
}

macro_rules! parts_of_aggregates {
    ($element:ident, $accum:ident, $avg:ident, $sum:ident) => {
        #[pg_extern(immutable, parallel_safe)]
        fn $accum(sums: Numbers<'_, f64>, value: Vector<'_, $element>) -> Vec<f64> {
            add(&sums, &value)
        }

        #[pg_extern(immutable, parallel_safe)]
        fn $avg(sums: Numbers<'_, f64>) -> Option<NewVector<$element>> {
            finish(&sums, |sum, count| sum / count)
        }

        #[pg_extern(immutable, parallel_safe)]
        fn $sum(sums: Numbers<'_, f64>) -> Option<NewVector<$element>> {
            finish(&sums, |sum, _| sum)
        }
    };
}

parts_of_aggregates!(f32, imgvec_accum, imgvec_avg, imgvec_sum);
parts_of_aggregates!(f16, imghalf_accum, imghalf_avg, imghalf_sum);
