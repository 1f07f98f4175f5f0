//! `taste`: the direction of what somebody likes, away from what not (Rocchio 1971).
//!
//! The state is a `double precision[]`, so that parallel workers can exchange it: the magnitudes of the weights together, zero
//! vectors left out, then the weighted sum of unit vectors, or nothing yet.

use crate::error::vector::{different_dims, weights_out_of_range};
use crate::error::{Code, OrRaise, Report};
use crate::types::Vector;
use crate::types::datum::{NewVector, Numbers};
use imgvec_vector::{Dim, MAX_DIM, arithmetic};
use pgrx::prelude::*;

/// A state as a plain slice, checked.
fn state<'a>(array: &'a Numbers<'_, f64>) -> &'a [f64] {
    match array.as_slice() {
        // No sum is larger than the weights together, but for rounding.
        Ok(state @ [total, sums @ ..])
            if array.dimensions() == 1
                && (0.0..f64::INFINITY).contains(total)
                && sums.iter().all(|sum| sum.abs() <= total * (1.0 + 1e-6)) =>
        {
            if state.len() > 1 + MAX_DIM {
                Dim::new(state.len() - 1).or_raise();
            }
            state
        }
        _ => Report::new(Code::ERRCODE_INVALID_PARAMETER_VALUE, "invalid state of aggregate taste")
            .detail("The state is the magnitude of the weights followed by the sums of the elements.")
            .hint("Call taste rather than its parts.")
            .raise(),
    }
}

#[pg_extern(immutable, parallel_safe)]
fn taste_accum(sums: Numbers<'_, f64>, embedding: Vector<'_>, weight: f64) -> Vec<f64> {
    if !weight.is_finite() {
        Report::new(Code::ERRCODE_INVALID_PARAMETER_VALUE, "weights must be finite numbers")
            .detail(format!("A weight is {weight}."))
            .hint("Give each row a weight, a negative one for what is not liked, or NULL to leave it out.")
            .raise();
    }
    let mut sums = state(&sums).to_vec();
    if sums.len() == 1 {
        sums.resize(1 + embedding.dim(), 0.0);
    }
    if sums.len() - 1 != embedding.dim() {
        different_dims(sums.len() - 1, embedding.dim()).raise();
    }
    sums[0] += arithmetic::add_direction(embedding.elements(), weight, &mut sums[1..]);
    finite(sums)
}

#[pg_extern(immutable, parallel_safe)]
fn taste_combine(a: Numbers<'_, f64>, b: Numbers<'_, f64>) -> Vec<f64> {
    let (a, b) = (state(&a), state(&b));
    finite(match (a.len(), b.len()) {
        (_, 1) => a.to_vec(),
        (1, _) => b.to_vec(),
        (left, right) if left == right => a.iter().zip(b).map(|(a, b)| a + b).collect(),
        (left, right) => different_dims(left - 1, right - 1).raise(),
    })
}

/// The sums, unless the weights left the range of double precision.
fn finite(sums: Vec<f64>) -> Vec<f64> {
    if !sums.iter().all(|sum| sum.is_finite()) {
        weights_out_of_range().raise();
    }
    sums
}

/// NULL of no rows, and where the rows cancel each other: then there is no direction to go.
#[pg_extern(immutable, parallel_safe)]
fn taste_final(sums: Numbers<'_, f64>) -> Option<NewVector> {
    let (&total, sums) = state(&sums).split_first().expect("a state has a total");
    let mut unit = vec![0.0; sums.len()];
    let has_direction = !sums.is_empty() && arithmetic::unit_of_sum(sums, total, &mut unit);
    has_direction.then(|| NewVector::from_slice(&unit))
}
