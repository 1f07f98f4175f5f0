//! The distance operators' functions and the norm. Names and results are pgvector's.

use super::datum::{NewVector, Vector};
use crate::error::vector::different_dims;
use imgvec_vector::{arithmetic, distance};
use pgrx::prelude::*;

/// The elements of both, of one dimension.
pub fn same_dims<'a>(a: &'a Vector<'_>, b: &'a Vector<'_>) -> (&'a [f32], &'a [f32]) {
    if a.dim() != b.dim() {
        different_dims(a.dim(), b.dim()).raise();
    }
    (a.elements(), b.elements())
}

macro_rules! distance_function {
    ($name:ident, $(#[$doc:meta])* $kernel:expr) => {
        $(#[$doc])*
        #[pg_extern(immutable, parallel_safe)]
        fn $name(a: Vector<'_>, b: Vector<'_>) -> f64 {
            let (a, b) = same_dims(&a, &b);
            ($kernel)(a, b)
        }
    };
}

distance_function!(imgvec_l2_distance, distance::l2);
distance_function!(imgvec_l2_squared_distance, distance::l2_squared);
distance_function!(imgvec_inner_product, distance::inner_product);
distance_function!(imgvec_negative_inner_product, |a, b| -distance::inner_product(a, b));
distance_function!(imgvec_cosine_distance, distance::cosine);
distance_function!(imgvec_l1_distance, distance::l1);
distance_function!(imgvec_spherical_distance, distance::spherical);

#[pg_extern(immutable, parallel_safe)]
fn imgvec_dims(vector: Vector<'_>) -> i32 {
    i32::try_from(vector.dim()).expect("16,000 at most")
}

#[pg_extern(immutable, parallel_safe)]
fn imgvec_norm(vector: Vector<'_>) -> f64 {
    distance::norm(vector.elements())
}

#[pg_extern(immutable, parallel_safe)]
fn imgvec_l2_normalize(vector: Vector<'_>) -> NewVector {
    let mut unit = NewVector::zeroed(vector.dim());
    arithmetic::normalize(vector.elements(), unit.elements_mut());
    unit
}
