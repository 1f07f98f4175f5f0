//! `embed_mix`: a query out of several vectors, each with a weight.
//!
//! Only the direction of a vector counts, so that a weight says how much it counts, whatever its length. A vector that is
//! NULL is left out with its weight, since part of a query may be missing.

use super::datum::{NewVector, Vector};
use crate::error::{Code, OrRaise, Report, vector};
use imgvec_vector::arithmetic;
use pgrx::Array;
use pgrx::prelude::*;

/// A sum of directions, as it grows.
pub struct Mix {
    sum: Vec<f64>,
    /// Magnitudes of the weights of vectors that have a direction.
    total: f64,
}

impl Mix {
    pub fn new() -> Self {
        Self { sum: Vec::new(), total: 0.0 }
    }

    /// Adds a vector.
    ///
    /// # Errors
    /// If it has not the dimension of those before, or the weights together are beyond double precision.
    pub fn add(&mut self, vector: &[f32], weight: f64) -> Result<(), Report> {
        if self.sum.is_empty() {
            self.sum.resize(vector.len(), 0.0);
        }
        if self.sum.len() != vector.len() {
            return Err(vector::different_dims(self.sum.len(), vector.len()));
        }
        self.total += arithmetic::add_direction(vector, weight, &mut self.sum);
        if self.total.is_finite() { Ok(()) } else { Err(vector::weights_out_of_range()) }
    }

    /// The unit vector of the sum; nothing if nothing was added.
    ///
    /// # Errors
    /// If the vectors cancel each other.
    pub fn unit(self) -> Result<Option<Vec<f32>>, Report> {
        let mut unit = vec![0.0; self.sum.len()];
        if unit.is_empty() {
            return Ok(None);
        }
        if arithmetic::unit_of_sum(&self.sum, self.total, &mut unit) {
            return Ok(Some(unit));
        }
        let why = if self.total == 0.0 {
            "All weights are 0, or all vectors are zero."
        } else {
            "With these weights the vectors cancel each other."
        };
        Err(Report::new(Code::ERRCODE_DATA_EXCEPTION, "the mix of these vectors has no direction")
            .detail(why)
            .hint("Choose other weights, or leave a vector out."))
    }
}

fn mix(vectors: &Array<'_, Vector<'_>>, weights: &Array<'_, f64>) -> Result<Option<Vec<f32>>, Report> {
    if vectors.len() != weights.len() {
        return Err(Report::new(
            Code::ERRCODE_INVALID_PARAMETER_VALUE,
            "vectors and weights must be arrays of the same length",
        )
        .detail(format!("There are {} vectors and {} weights.", vectors.len(), weights.len()))
        .hint("Give each vector a weight. A negative weight moves the result away from it."));
    }
    let mut mix = Mix::new();
    for (place, (vector, weight)) in vectors.iter().zip(weights.iter()).enumerate() {
        pgrx::check_for_interrupts!();
        let Some(weight) = weight else {
            return Err(Report::new(Code::ERRCODE_NULL_VALUE_NOT_ALLOWED, "weights must not contain nulls")
                .detail(format!("Weight {} is null.", place + 1))
                .hint("Give each vector a weight, 0 for one that should not count."));
        };
        if !weight.is_finite() {
            return Err(Report::new(Code::ERRCODE_INVALID_PARAMETER_VALUE, "weights must be finite numbers")
                .detail(format!("Weight {} is {weight}.", place + 1))
                .hint("Give each vector a weight, 0 for one that should not count."));
        }
        if let Some(vector) = vector {
            mix.add(vector.elements(), weight)?;
        }
    }
    mix.unit()
}

#[pg_extern(immutable, parallel_safe)]
fn embed_mix(vectors: Array<'_, Vector<'_>>, weights: Array<'_, f64>) -> Option<NewVector> {
    mix(&vectors, &weights).or_raise().map(|unit| NewVector::from_slice(&unit))
}
